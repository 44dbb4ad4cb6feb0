"""A stand-in for bluetoothd on a D-Bus of its own: adapters, devices that advertise, and GATT, as BlueZ's D-Bus API says.

It is told what happens in lines of JSON on stdin and answers each with one line. What a client of BlueZ may do is kept and can
be asked for ("state"). Used by tests/src/bluetooth.rs.
"""

import asyncio
import json
import sys

from dbus_fast import DBusError, PropertyAccess, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

ROOT = "/org/bluez"


class Manager(ServiceInterface):
    """org.bluez.AgentManager1."""

    def __init__(self):
        super().__init__("org.bluez.AgentManager1")
        self.agent = None

    @dbus_method()
    def RegisterAgent(self, agent: "o", capability: "s"):
        if self.agent:
            raise DBusError("org.bluez.Error.AlreadyExists", "Already Exists")
        self.agent = agent


class Adapter(ServiceInterface):
    """org.bluez.Adapter1."""

    def __init__(self, double, name, address):
        super().__init__("org.bluez.Adapter1")
        self.double, self.hci, self.address = double, name, address
        self.path = f"{ROOT}/{name}"
        self.powered, self.discovering = False, False
        self.scans = 0

    @dbus_method()
    def SetDiscoveryFilter(self, filter: "a{sv}"):
        self.filter = {key: value.value for key, value in filter.items()}

    @dbus_method()
    def StartDiscovery(self):
        if not self.powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")
        if self.discovering:
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        self.scans += 1
        self.set_discovering(True)

    @dbus_method()
    def StopDiscovery(self):
        if not self.discovering:
            raise DBusError("org.bluez.Error.Failed", "No discovery started")
        self.set_discovering(False)

    def set_discovering(self, on):
        self.discovering = on
        self.emit_properties_changed({"Discovering": on})

    @dbus_property(access=PropertyAccess.READ)
    def Address(self) -> "s":
        return self.address

    @dbus_property(access=PropertyAccess.READ)
    def AddressType(self) -> "s":
        return "public"

    @dbus_property(access=PropertyAccess.READ)
    def Name(self) -> "s":
        return "double"

    @dbus_property(access=PropertyAccess.READ)
    def Alias(self) -> "s":
        return "double"

    @dbus_property(access=PropertyAccess.READ)
    def Modalias(self) -> "s":
        return "usb:v1D6Bp0246d0542"

    @dbus_property(access=PropertyAccess.READ)
    def Discovering(self) -> "b":
        return self.discovering

    @dbus_property()
    def Powered(self) -> "b":
        return self.powered

    @Powered.setter
    def Powered(self, on: "b"):
        self.powered = on
        self.emit_properties_changed({"Powered": on})


class Device(ServiceInterface):
    """org.bluez.Device1."""

    def __init__(self, double, adapter, address):
        super().__init__("org.bluez.Device1")
        self.double, self.adapter, self.address = double, adapter, address
        self.path = f"{adapter.path}/dev_{address.replace(':', '_')}"
        self.rssi, self.manufacturer, self.service = -60, {}, {}
        self.connected = self.resolved = self.paired = self.trusted = False
        self.characteristics = []
        self.passkey = None
        self.refuses = False
        self.asked = []
        self.connects = 0

    def set(self, connected):
        self.connected = connected
        self.emit_properties_changed({"Connected": connected})
        self.resolved = connected
        self.emit_properties_changed({"ServicesResolved": connected})
        if not connected:
            for characteristic in self.characteristics:
                characteristic.notifying = False

    @dbus_method()
    def Connect(self):
        self.connects += 1
        if self.refuses:
            raise DBusError("org.bluez.Error.Failed", "le-connection-abort-by-local")
        if not self.connected:
            self.set(True)

    @dbus_method()
    def Disconnect(self):
        if not self.connected:
            raise DBusError("org.bluez.Error.NotConnected", "Not Connected")
        self.set(False)

    @dbus_method()
    async def Pair(self):
        if self.paired:
            raise DBusError("org.bluez.Error.AlreadyExists", "Already Exists")
        if self.passkey is not None:
            agent = self.double.manager.agent
            if not agent:
                raise DBusError("org.bluez.Error.AuthenticationFailed", "Authentication Failed")
            answer = await self.double.ask_agent(agent, self.path)
            self.asked.append(answer)
            if answer != self.passkey:
                raise DBusError("org.bluez.Error.AuthenticationFailed", "Authentication Failed")
        self.paired = True
        self.emit_properties_changed({"Paired": True})
        self.set(True)

    @dbus_property(access=PropertyAccess.READ)
    def Address(self) -> "s":
        return self.address

    @dbus_property(access=PropertyAccess.READ)
    def AddressType(self) -> "s":
        return "public"

    @dbus_property(access=PropertyAccess.READ)
    def Name(self) -> "s":
        return "thing"

    @dbus_property(access=PropertyAccess.READ)
    def Alias(self) -> "s":
        return "thing"

    @dbus_property(access=PropertyAccess.READ)
    def Adapter(self) -> "o":
        return self.adapter.path

    @dbus_property(access=PropertyAccess.READ)
    def Paired(self) -> "b":
        return self.paired

    @dbus_property(access=PropertyAccess.READ)
    def Connected(self) -> "b":
        return self.connected

    @dbus_property(access=PropertyAccess.READ)
    def ServicesResolved(self) -> "b":
        return self.resolved

    @dbus_property()
    def Trusted(self) -> "b":
        return self.trusted

    @Trusted.setter
    def Trusted(self, on: "b"):
        self.trusted = on

    @dbus_property(access=PropertyAccess.READ)
    def Blocked(self) -> "b":
        return False

    @dbus_property(access=PropertyAccess.READ)
    def LegacyPairing(self) -> "b":
        return False

    @dbus_property(access=PropertyAccess.READ)
    def UUIDs(self) -> "as":
        return []

    @dbus_property(access=PropertyAccess.READ)
    def RSSI(self) -> "n":
        return self.rssi

    @dbus_property(access=PropertyAccess.READ)
    def ManufacturerData(self) -> "a{qv}":
        return self.manufacturer

    @dbus_property(access=PropertyAccess.READ)
    def ServiceData(self) -> "a{sv}":
        return self.service


class Service(ServiceInterface):
    """org.bluez.GattService1."""

    def __init__(self, device, uuid, index):
        super().__init__("org.bluez.GattService1")
        self.device, self.uuid = device, uuid
        self.path = f"{device.path}/service{index:04x}"

    @dbus_property(access=PropertyAccess.READ)
    def UUID(self) -> "s":
        return self.uuid

    @dbus_property(access=PropertyAccess.READ)
    def Primary(self) -> "b":
        return True

    @dbus_property(access=PropertyAccess.READ)
    def Device(self) -> "o":
        return self.device.path


class Characteristic(ServiceInterface):
    """org.bluez.GattCharacteristic1."""

    def __init__(self, service, uuid, index, flags, value):
        super().__init__("org.bluez.GattCharacteristic1")
        self.service, self.uuid, self.flags, self.value = service, uuid, flags, value
        self.path = f"{service.path}/char{index:04x}"
        self.notifying = False
        self.subscriptions, self.writes, self.stuck = 0, [], None

    def check(self):
        if not self.service.device.connected:
            raise DBusError("org.bluez.Error.NotConnected", "Not Connected")

    @dbus_method()
    def ReadValue(self, options: "a{sv}") -> "ay":
        self.check()
        if "read" not in self.flags:
            raise DBusError("org.bluez.Error.NotPermitted", "Read not permitted")
        return self.value

    @dbus_method()
    def WriteValue(self, value: "ay", options: "a{sv}"):
        self.check()
        if not {"write", "write-without-response"} & set(self.flags):
            raise DBusError("org.bluez.Error.NotPermitted", "Write not permitted")
        self.writes.append([bytes(value).hex(), options["type"].value])
        if self.stuck is None:
            self.value = bytes(value)

    @dbus_method()
    def StartNotify(self):
        self.check()
        self.notifying = True
        self.subscriptions += 1

    @dbus_method()
    def StopNotify(self):
        self.notifying = False

    def notify(self, value):
        self.value = value
        if self.notifying:
            self.emit_properties_changed({"Value": value})

    @dbus_property(access=PropertyAccess.READ)
    def UUID(self) -> "s":
        return self.uuid

    @dbus_property(access=PropertyAccess.READ)
    def Service(self) -> "o":
        return self.service.path

    @dbus_property(access=PropertyAccess.READ)
    def Flags(self) -> "as":
        return self.flags

    @dbus_property(access=PropertyAccess.READ)
    def Value(self) -> "ay":
        return self.value


def full(uuid):
    return uuid if len(uuid) > 4 else f"0000{uuid}-0000-1000-8000-00805f9b34fb"


class Double:
    """All of it."""

    def __init__(self):
        self.adapters, self.devices = {}, {}

    async def start(self, address):
        self.bus = await MessageBus(bus_address=address).connect()
        await self.daemon_start()

    async def daemon_start(self):
        self.manager = Manager()
        self.bus.export(ROOT, self.manager)
        self.add_adapter("hci0", "00:11:22:33:44:55")
        await self.bus.request_name("org.bluez")

    async def daemon_stop(self):
        await self.bus.release_name("org.bluez")
        for device in list(self.devices.values()):
            self.remove(device)
        for adapter in list(self.adapters.values()):
            self.bus.unexport(adapter.path)
        self.bus.unexport(ROOT)
        self.adapters.clear()

    def add_adapter(self, name, address):
        adapter = Adapter(self, name, address)
        self.adapters[name] = adapter
        self.bus.export(adapter.path, adapter)

    def remove_adapter(self, name):
        adapter = self.adapters.pop(name)
        for device in [d for d in self.devices.values() if d.adapter is adapter]:
            self.remove(device)
        self.bus.unexport(adapter.path)

    def remove(self, device):
        for characteristic in device.characteristics:
            self.bus.unexport(characteristic.path)
        for service in {c.service.path for c in device.characteristics}:
            self.bus.unexport(service)
        self.bus.unexport(device.path)
        del self.devices[device.address]

    async def ask_agent(self, agent, path):
        from dbus_fast import Message

        # The agent is the client's that registered it; there is one client.
        reply = await self.bus.call(
            Message(destination=self.client, path=agent, interface="org.bluez.Agent1",
                    member="RequestPasskey", signature="o", body=[path]))
        return reply.body[0] if reply.signature == "u" else reply.error_name

    def device(self, command):
        address = command["address"]
        if address not in self.devices:
            adapter = self.adapters[command.get("adapter", "hci0")]
            self.devices[address] = Device(self, adapter, address)
        return self.devices[address]

    def characteristic(self, command):
        device = self.devices[command["address"]]
        return next(c for c in device.characteristics if c.uuid == full(command["uuid"]))

    async def do(self, command):
        op = command["op"]
        if op == "advertise":
            known = command["address"] in self.devices
            device = self.device(command)
            changed = {}
            device.rssi = command.get("rssi", device.rssi)
            changed["RSSI"] = device.rssi
            if "manufacturer" in command:
                data = command["manufacturer"].items()
                device.manufacturer = {int(k): Variant("ay", bytes.fromhex(v)) for k, v in data}
                changed["ManufacturerData"] = device.manufacturer
            if "service" in command:
                data = command["service"].items()
                device.service = {full(k): Variant("ay", bytes.fromhex(v)) for k, v in data}
                changed["ServiceData"] = device.service
            if not device.adapter.discovering:
                if not known:
                    del self.devices[device.address]
                return "nobody scans"
            if not known:
                self.bus.export(device.path, device)
            else:
                device.emit_properties_changed(changed)
            return "heard"
        if op == "gatt":
            device = self.device(command)
            index = 1
            for uuid, characteristics in command["services"].items():
                service = Service(device, full(uuid), index)
                index += 1
                self.bus.export(service.path, service)
                for c in characteristics:
                    made = Characteristic(service, full(c["uuid"]), index, c["flags"], bytes.fromhex(c["value"]))
                    index += 1
                    device.characteristics.append(made)
                    self.bus.export(made.path, made)
            device.passkey = command.get("passkey")
            if device.path not in self.bus._path_exports:
                self.bus.export(device.path, device)
            return "made"
        if op == "notify":
            characteristic = self.characteristic(command)
            characteristic.notify(bytes.fromhex(command["value"]))
            return characteristic.notifying
        if op == "stick":
            self.characteristic(command).stuck = True
            return None
        if op == "refuse":
            self.devices[command["address"]].refuses = command["on"]
            return None
        if op == "drop":
            self.devices[command["address"]].set(False)
            return None
        if op == "stop_scan":
            self.adapters["hci0"].set_discovering(False)
            return None
        if op == "adapter":
            if command["on"]:
                self.add_adapter(command.get("name", "hci0"), command.get("is", "00:11:22:33:44:55"))
            else:
                self.remove_adapter(command.get("name", "hci0"))
            return None
        if op == "daemon":
            await (self.daemon_start() if command["on"] else self.daemon_stop())
            return None
        if op == "clients":
            from dbus_fast import Message

            reply = await self.bus.call(
                Message(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
                        interface="org.freedesktop.DBus", member="ListNames"))
            return len([n for n in reply.body[0] if n.startswith(":")])
        if op == "state":
            return {
                "scanning": {n: a.discovering for n, a in self.adapters.items()},
                "agent": self.manager.agent,
                "devices": {
                    d.address: {
                        "connected": d.connected, "paired": d.paired, "trusted": d.trusted, "connects": d.connects,
                        "asked": d.asked,
                        "writes": {c.uuid: c.writes for c in d.characteristics},
                        "subscriptions": {c.uuid: c.subscriptions for c in d.characteristics},
                    } for d in self.devices.values()
                },
            }
        raise ValueError(op)


async def main():
    double = Double()
    await double.start(sys.argv[1])

    # The sender of each call, so that an agent can be asked: the library does not tell its methods.
    def note(message):
        if message.member == "RegisterAgent":
            double.client = message.sender

    double.bus.add_message_handler(note)
    print(json.dumps("ready"), flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = await double.do(json.loads(line))
        except Exception as error:  # the test shows it
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
