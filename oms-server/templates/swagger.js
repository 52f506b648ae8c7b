SwaggerUIBundle({
  dom_id: "#ui",
  url: "/openapi.json",
  deepLinking: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  // The badge would send the document to a host on the internet.
  validatorUrl: null,
});
