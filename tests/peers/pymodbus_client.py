"""A Modbus client of pymodbus. Prints one line of JSON.

  pymodbus_client.py identify PORT                            what unit 1 says of itself: [[number, text], ...]
  pymodbus_client.py poll PORT SECONDS REGISTERS CONNECTIONS  reads holding registers as fast as it can: reads, processor seconds
"""

import asyncio
import json
import sys
import time

from pymodbus.client import AsyncModbusTcpClient


async def identify(port):
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    answer = await client.read_device_information(read_code=1, object_id=0, device_id=1)
    print(json.dumps([[number, text.decode()] for number, text in sorted(answer.information.items())]))
    client.close()


async def poll(port, seconds, registers, connections):
    end, reads = time.monotonic() + seconds, 0

    async def one():
        nonlocal reads
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        while time.monotonic() < end:
            answer = await client.read_holding_registers(0, count=registers, device_id=1)
            assert len(answer.registers) == registers
            reads += 1
        client.close()

    before = time.process_time()
    await asyncio.gather(*(one() for _ in range(connections)))
    print(json.dumps([reads, time.process_time() - before]))


if sys.argv[1] == "identify":
    asyncio.run(identify(int(sys.argv[2])))
else:
    asyncio.run(poll(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
