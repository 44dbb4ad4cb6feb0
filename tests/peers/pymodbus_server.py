"""A Modbus server of pymodbus, told what to be by one JSON argument and controlled over stdin.

The argument: "devices", "port", "kind" ("tcp", "udp", "tls" with "certificate", "key" and "ca", "serial" with "path") and
"framer" ("socket", "rtu", "ascii").

Prints its port first. Then, a line of JSON in, a line of JSON out:
  {"op": "requests"}                                    the requests since the last time: [unit, function, address, count]
  {"op": "delay", "unit": 1, "ms": 500}                 answers of this unit take so long from now on; a unit that is not
                                                        listed answers with an exception, so a silent one is a slow one
  {"op": "poke", "unit": 1, "function": 3, "address": 0, "value": 7}   a register changes by itself, seen at the next read
"""

import asyncio
import functools
import json
import ssl
import sys

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REQUESTS = []
DELAYS = {}
POKES = {}


async def act(unit, function, start, address, count, registers, values):
    await asyncio.sleep(DELAYS.get(unit, 0) / 1000)
    for at, value in POKES.pop((unit, function), {}).items():
        registers[at - start] = value


def trace(sending, pdu):
    if not sending:
        REQUESTS.append([pdu.dev_id, pdu.function_code, getattr(pdu, "address", 0), getattr(pdu, "count", 0)])
    return pdu


def block(ranges, datatype):
    # A table nobody asked for still needs an entry: one far away.
    ranges = ranges or [[65000, [0]]]
    values = (lambda v: [bool(x) for x in v]) if datatype == DataType.BITS else (lambda v: v)
    return [SimData(address, values=values(v), datatype=datatype) for address, v in ranges]


def device(d):
    tables = (
        block(d.get("coils"), DataType.BITS),
        block(d.get("discrete"), DataType.BITS),
        block(d.get("holding"), DataType.REGISTERS),
        block(d.get("input"), DataType.REGISTERS),
    )
    DELAYS[d["unit"]] = d.get("delay", 0)
    return SimDevice(d["unit"], simdata=tables, action=functools.partial(act, d["unit"]))


def control(line):
    c = json.loads(line)
    if c["op"] == "requests":
        out = list(REQUESTS)
        REQUESTS.clear()
        return out
    if c["op"] == "delay":
        DELAYS[c["unit"]] = c["ms"]
    if c["op"] == "poke":
        POKES.setdefault((c["unit"], c["function"]), {})[c["address"]] = c["value"]
    return None


async def main():
    config = json.loads(sys.argv[1])
    devices = [device(d) for d in config["devices"]]
    identity = ModbusDeviceIdentification(info_name={"VendorName": "Acme", "ProductCode": "P1", "MajorMinorRevision": "1.2"})
    kind, address = config.get("kind", "tcp"), ("127.0.0.1", config.get("port", 0))
    more = {"trace_pdu": trace, "identity": identity}
    usual = "rtu" if kind == "serial" else "socket"
    more["framer"] = {"socket": FramerType.SOCKET, "rtu": FramerType.RTU, "ascii": FramerType.ASCII}[
        config.get("framer", usual)
    ]
    if kind == "serial":
        server = ModbusSerialServer(
            devices, port=config["path"], ignore_missing_devices=True, broadcast_enable=True, **more
        )
    elif kind == "udp":
        server = ModbusUdpServer(devices, address=address, **more)
    elif kind == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config["certificate"], config["key"])
        context.load_verify_locations(config["ca"])
        context.verify_mode = ssl.CERT_REQUIRED
        server = ModbusTlsServer(devices, address=address, sslctx=context, **more)
    else:
        server = ModbusTcpServer(devices, address=address, **more)
    await server.serve_forever(background=True)
    if kind == "udp":
        print(server.transport.get_extra_info("sockname")[1], flush=True)
    elif kind == "serial":
        print(0, flush=True)
    else:
        print(server.transport.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(control(line)), flush=True)
    await server.shutdown()


asyncio.run(main())
