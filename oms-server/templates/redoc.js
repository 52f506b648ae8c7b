Redoc.init("/openapi.json", { scrollYOffset: 0 }, document.getElementById("redoc"));
