"""A device with an HTTP interface: a relay with a meter. Python's own server, told what to be by one JSON argument.

  {"user": "admin", "password": "secret"}     asks for them; or {"token": "abc"}
  {"certificate": "...", "key": "..."}        files, for TLS

Prints its port first. Then, a line of JSON in, a line of JSON out:
  {"op": "requests"}             the requests since the last time: [method, path]
  {"op": "set", "key": value}    how it is from now on: power, silent, sticky (a write changes nothing), close, status
"""

import base64
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OPTIONS = json.loads(sys.argv[1])
STATE = {"power": 12.5, "on": False, "name": "hall", "level": 3, "silent": False, "sticky": False, "close": False, "status": 200}
REQUESTS = []


class Device(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def allowed(self):
        given = self.headers.get("Authorization", "")
        if "token" in OPTIONS:
            return given == "Bearer " + OPTIONS["token"]
        if "user" in OPTIONS:
            pair = f"{OPTIONS['user']}:{OPTIONS['password']}".encode()
            return given == "Basic " + base64.b64encode(pair).decode()
        return True

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if STATE["close"]:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        REQUESTS.append([self.command, self.path])
        while STATE["silent"]:
            time.sleep(0.05)
        if not self.allowed():
            return self.answer(401, "who are you?")
        if STATE["status"] != 200:
            return self.answer(STATE["status"], "no")
        path, _, query = self.path.partition("?")
        if self.command == "GET" and path == "/api/status":
            meters = [{"power": STATE["power"]}]
            return self.answer(200, json.dumps({"meters": meters, "relays": [{"ison": STATE["on"]}], "name": STATE["name"]}))
        if self.command == "GET" and path == "/api/level":
            if query and not STATE["sticky"]:
                STATE["level"] = int(query.removeprefix("set="))
            return self.answer(200, str(STATE["level"]))
        if self.command == "GET" and path == "/api/huge":
            return self.answer(200, "1" * (300 << 10))
        if self.command in ("PUT", "POST") and path == "/api/relay/0":
            if self.headers.get("Content-Type") != "application/json":
                return self.answer(415, "JSON, please")
            if not STATE["sticky"]:
                STATE["on"] = json.loads(body)["on"]
            return self.answer(200, "{}")
        if self.command == "PUT" and path == "/api/name":
            STATE["name"] = body
            return self.answer(200, "")
        return self.answer(404, "nothing here")

    do_GET = do_PUT = do_POST = do_PATCH = handle_one


server = ThreadingHTTPServer(("127.0.0.1", OPTIONS.get("port", 0)), Device)
server.daemon_threads = True
if "certificate" in OPTIONS:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(OPTIONS["certificate"], OPTIONS["key"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if command.pop("op") == "set":
        STATE.update(command)
        print("{}", flush=True)
    else:
        seen, REQUESTS[:] = list(REQUESTS), []
        print(json.dumps(seen), flush=True)
