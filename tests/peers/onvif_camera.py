"""A camera that speaks ONVIF: PyPI's ipycam, without its pictures. Told what to be by one JSON argument.

  {"user": "admin", "password": "secret"}    asks for them
  {"discovery": true}                        can be found with WS-Discovery, on loopback
  {"name": "Hall", "ahead": 86400}           its name; how many seconds its clock is ahead
  {"host": "10.9.9.9"}                       the host in the URIs it gives, as behind address translation
  {"uuid": "urn:uuid:..."}                   its endpoint reference
  {"http_digest": true}                      asks for HTTP's digest (MD5) instead, which PyPI's Twisted checks
  {"clock_for_all": false}                   tells its clock to users only, as ipycam does by itself

Prints its port first. Then, a line of JSON in, a line of JSON out:
  {"op": "requests"}             the requests since the last time, and what ONVIF's own WSDL (PyPI's onvif-zeep-async) has
                                 against each: [name, fault or null]
  {"op": "set", key: value}      how it is from now on: ahead, silent
"""

import importlib.util
import io
import json
import logging
import re
import socket
import sys
import threading
import time
import types
from datetime import datetime, timedelta, timezone
from http.server import ThreadingHTTPServer
from pathlib import Path

import zeep
from lxml import etree
from twisted.cred.credentials import DigestCredentialFactory
from twisted.cred.error import LoginFailed
from zeep.transports import Transport

# Only its pictures need them; nothing here is one.
sys.modules["cv2"] = types.ModuleType("cv2")
sys.modules["numpy"] = types.ModuleType("numpy")
sys.modules["numpy"].ndarray = object

OPTIONS = json.loads(sys.argv[1])
STATE = {"ahead": OPTIONS.get("ahead", 0), "silent": False}
REQUESTS = []

from ipycam import onvif  # noqa: E402
from ipycam.config import CameraConfig  # noqa: E402
from ipycam.discovery import WSDiscoveryServer  # noqa: E402
from ipycam.http import IPCameraHTTPHandler  # noqa: E402


class Clock(datetime):
    """What ipycam takes for the time when it checks how old a token is."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds=STATE["ahead"])


class Time(types.ModuleType):
    """The same for what it says of its clock."""

    @staticmethod
    def gmtime():
        return time.gmtime(time.time() + STATE["ahead"])


onvif.datetime, onvif.time = Clock, Time("time")


def schema():
    """The official messages by name."""
    logging.disable(logging.CRITICAL)
    [package] = importlib.util.find_spec("onvif").submodule_search_locations
    known = {}
    for name in ("devicemgmt.wsdl", "media.wsdl"):
        place = str(Path(package) / "wsdl" / name)
        wsdl = zeep.wsdl.Document(place, Transport(), settings=zeep.Settings(strict=True))
        for element in wsdl.types.elements:
            known[element.qname.text] = (element, wsdl.types)
    return known


MESSAGES = schema()
DIGEST = None
if "http_digest" in OPTIONS:
    DIGEST = DigestCredentialFactory(b"md5", b"camera")


def fault(text):
    """What the official schema has against a request."""
    try:
        [message] = etree.fromstring(text.encode()).find("{http://www.w3.org/2003/05/soap-envelope}Body")
        element, known = MESSAGES[message.tag]
        element.parse(message, known)
    except Exception as error:  # whatever it is, the test has to see it
        return f"{type(error).__name__}: {error}"
    return None


class Camera(IPCameraHTTPHandler):
    def known(self):
        given = self.headers.get("Authorization", "")
        if not given.startswith("Digest "):
            return False
        try:
            who = DIGEST.decode(given.removeprefix("Digest ").encode(), b"POST", b"127.0.0.1")
        except LoginFailed:
            return False
        return who.username == OPTIONS["user"].encode() and who.checkPassword(OPTIONS["password"].encode())

    def handle_onvif(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        name = re.search(rb"Body>\s*<(?:\w+:)?(\w+)", body)
        name = name.group(1).decode() if name else ""
        REQUESTS.append([name, fault(body.decode())])
        while STATE["silent"]:
            time.sleep(0.05)
        if DIGEST and not self.known():
            challenge = ", ".join(f'{k}="{v.decode()}"' for k, v in DIGEST.getChallenge(b"127.0.0.1").items())
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("WWW-Authenticate", f'Digest {challenge}, qop="auth"')
            self.send_header("Content-Length", 0)
            self.end_headers()
            return
        # ipycam asks for a user even there; the specification says that the clock is for everybody.
        if name == "GetSystemDateAndTime" and OPTIONS.get("clock_for_all", True):
            answer = self.camera.onvif.get_system_date_time().encode()
            self.send_response(200)
            self.send_header("Content-Length", len(answer))
            self.end_headers()
            self.wfile.write(answer)
            return
        self.rfile = io.BytesIO(body)
        super().handle_onvif()


config = CameraConfig()
config.local_ip = "127.0.0.1"
config.name = OPTIONS.get("name", "Hall")
if not DIGEST:
    config.username, config.password = OPTIONS.get("user", ""), OPTIONS.get("password", "")
service = onvif.ONVIFService(config)
if "uuid" in OPTIONS:
    service.device_uuid = OPTIONS["uuid"]
Camera.camera = types.SimpleNamespace(onvif=service, config=config)
server = ThreadingHTTPServer(("127.0.0.1", OPTIONS.get("port", 0)), Camera)
server.daemon_threads = True
config.onvif_port = server.server_address[1]
threading.Thread(target=server.serve_forever, daemon=True).start()
if OPTIONS.get("discovery"):
    discovery = WSDiscoveryServer(service)
    discovery.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    discovery.start()
if "host" in OPTIONS and not OPTIONS.get("discovery"):
    config.local_ip = OPTIONS["host"]
print(config.onvif_port, flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if command.pop("op") == "set":
        STATE.update(command)
        print("{}", flush=True)
    else:
        seen, REQUESTS[:] = list(REQUESTS), []
        print(json.dumps(seen), flush=True)
