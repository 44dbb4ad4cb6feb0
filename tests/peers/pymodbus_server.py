"""A Modbus TCP server of pymodbus, told what to be by one JSON argument and controlled over stdin.

Prints its port first. Then, a line of JSON in, a line of JSON out:
  {"op": "requests"}                                    the requests since the last time: [unit, function, address, count]
  {"op": "delay", "unit": 1, "ms": 500}                 answers of this unit take so long from now on; a unit that is not
                                                        listed answers with an exception, so a silent one is a slow one
  {"op": "poke", "unit": 1, "function": 3, "address": 0, "value": 7}   a register changes by itself, seen at the next read
"""

import asyncio
import functools
import json
import sys

from pymodbus.server import ModbusTcpServer
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
    server = ModbusTcpServer(
        [device(d) for d in config["devices"]],
        address=("127.0.0.1", config.get("port", 0)),
        trace_pdu=trace,
    )
    await server.serve_forever(background=True)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(control(line)), flush=True)
    await server.shutdown()


asyncio.run(main())
