"""An S3 server with an empty bucket: moto's, which speaks the real protocol. Tells its port in one line of JSON.

Its arguments are the name of the bucket and the port (0 for a free one).
"""

import json
import logging
import sys
import threading

import boto3
from moto.server import ThreadedMotoServer

logging.disable(logging.ERROR)
bucket, port = sys.argv[1], int(sys.argv[2])
server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
server.start()
host, port = server.get_host_and_port()
client = boto3.client(
    "s3",
    endpoint_url=f"http://{host}:{port}",
    region_name="us-east-1",
    aws_access_key_id="setup",
    aws_secret_access_key="setup",
)
client.create_bucket(Bucket=bucket)
print(json.dumps({"event": "ready", "port": port}), flush=True)
threading.Event().wait()
