"""The controller of the Bluetooth machine and the devices around it, played by bumble (github.com/google/bumble).

The controller's HCI is on the Unix socket given; the devices share its link. Told what happens in lines of JSON on stdin, it
answers each with one line. Used by tests/src/bluetooth.rs.
"""

import asyncio
import json
import sys

from bumble import core, hci
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData
from bumble.device import Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.host import Host
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport import open_transport
from bumble.transport.common import AsyncPipeSink


class Air(LocalLink):
    """Delivers data under the address its connection was made with; the library takes the random one, and BlueZ connects
    with its public address."""

    def send_acl_data(self, sender, destination, transport, data):
        connection = sender.le_connections.get(destination)
        receiver = self.find_le_controller(destination)
        if connection is None or receiver is None or transport != core.PhysicalTransport.LE:
            return super().send_acl_data(sender, destination, transport, data)
        source = connection.self_address
        asyncio.get_running_loop().call_soon(lambda: receiver.on_link_acl_data(source, transport, data))


class Display(PairingDelegate):
    """A device with a passkey printed on it."""

    def __init__(self, passkey):
        super().__init__(io_capability=PairingDelegate.IoCapability.DISPLAY_OUTPUT_ONLY)
        self.passkey = passkey

    async def generate_passkey(self):
        return self.passkey


class Thing:
    """A device on the air."""

    def __init__(self, link, address):
        controller = Controller(address, link=link)
        self.device = Device(address=hci.Address(address), host=Host(controller, AsyncPipeSink(controller)))
        self.connections, self.writes, self.characteristics = [], {}, {}
        self.connects = 0
        self.device.on("connection", self.connected)

    def connected(self, connection):
        self.connects += 1
        self.connections.append(connection)
        connection.on("disconnection", lambda _: self.connections.remove(connection))

    async def advertise(self, command):
        parts = [(AdvertisingData.FLAGS, bytes([0x06]))]
        for company, data in command.get("manufacturer", {}).items():
            value = int(company).to_bytes(2, "little") + bytes.fromhex(data)
            parts.append((AdvertisingData.MANUFACTURER_SPECIFIC_DATA, value))
        for uuid, data in command.get("service", {}).items():
            value = int(uuid, 16).to_bytes(2, "little") + bytes.fromhex(data)
            parts.append((AdvertisingData.SERVICE_DATA_16_BIT_UUID, value))
        if self.device.is_advertising:
            await self.device.stop_advertising()
        await self.device.start_advertising(
            advertising_data=bytes(AdvertisingData(parts)), auto_restart=True,
            advertising_interval_min=100, advertising_interval_max=100)

    def add(self, services):
        for uuid, characteristics in services.items():
            made = []
            for c in characteristics:
                value = bytearray(bytes.fromhex(c["value"]))
                flags = Characteristic.Properties.from_string(",".join(f.upper() for f in c["flags"]))
                permissions = Characteristic.READABLE | Characteristic.WRITEABLE
                if c.get("sealed"):
                    permissions |= Characteristic.READ_REQUIRES_AUTHENTICATION

                def read(connection, value=value):
                    return bytes(value)

                def write(connection, new, value=value, uuid=c["uuid"]):
                    value[:] = new
                    self.writes.setdefault(uuid, []).append(bytes(new).hex())

                one = Characteristic(UUID(c["uuid"]), flags, permissions, CharacteristicValue(read=read, write=write))
                self.characteristics[c["uuid"]] = (one, value)
                made.append(one)
            self.device.add_service(Service(UUID(uuid), made))


async def main():
    link = Air()
    transport = await open_transport(f"unix:{sys.argv[1]}")
    Controller(
        "gateway", host_source=transport.source, host_sink=transport.sink, link=link,
        public_address=hci.Address("00:11:22:33:44:55", hci.Address.PUBLIC_DEVICE_ADDRESS))
    things = {}

    async def do(command):
        op, address = command["op"], command.get("address")
        if op == "thing":
            thing = things[address] = Thing(link, address)
            thing.add(command.get("services", {}))
            if "passkey" in command:
                delegate = Display(command["passkey"])
                thing.device.pairing_config_factory = lambda _: PairingConfig(delegate=delegate)
            await thing.device.power_on()
            await thing.advertise(command)
            return "made"
        thing = things[address]
        if op == "advertise":
            await thing.advertise(command)
            return None
        if op == "notify":
            one, value = thing.characteristics[command["uuid"]]
            value[:] = bytes.fromhex(command["value"])
            await thing.device.notify_subscribers(one)
            return None
        if op == "indicate":
            one, value = thing.characteristics[command["uuid"]]
            value[:] = bytes.fromhex(command["value"])
            await thing.device.indicate_subscribers(one)
            return None
        if op == "drop":
            for connection in list(thing.connections):
                await connection.disconnect()
            return None
        if op == "state":
            return {
                "connected": len(thing.connections), "connects": thing.connects, "writes": thing.writes,
                "encrypted": [c.is_encrypted for c in thing.connections],
            }
        raise ValueError(op)

    print(json.dumps("ready"), flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = await do(json.loads(line))
        except Exception as error:  # the test shows it
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
