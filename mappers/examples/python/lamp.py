"""A mapper in Python: drives lamps that exist only here, over KubeEdge's Device Mapper Interface.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. dmi.proto
    python lamp.py /run/edge-runtime/dmi.sock /run/edge-runtime/lamp.sock

A Device with `protocolName: lamp` then has a lamp behind it: what is desired of its property `dimmer` is what it does, and it counts
the hours it has burnt in `hours`.
"""

import signal
import sys
import threading
from concurrent import futures

import grpc

import dmi_pb2 as dmi
import dmi_pb2_grpc as rpc

PROTOCOL = "lamp"


class Lamps(rpc.DeviceMapperServiceServicer):
    """The lamps, and the calls by which the runtime says what is wanted of them."""

    def __init__(self, runtime):
        # Without a name of its own, grpcio makes one of the socket's path, which no HTTP library but its own takes for a host.
        options = [("grpc.default_authority", "localhost"), ("grpc.max_reconnect_backoff_ms", 2000)]
        channel = grpc.insecure_channel(f"unix://{runtime}", options=options)
        self.runtime = rpc.DeviceManagerServiceStub(channel)
        self.lock = threading.Lock()
        self.lamps = {}  # (namespace, name) -> brightness

    def register(self, socket):
        """Says that this mapper is there, and takes over the lamps that are known already."""
        info = dmi.MapperInfo(name="lamp-py", version="1", api_version="v1beta1", protocol=PROTOCOL, address=socket.encode())
        request = dmi.MapperRegisterRequest(withData=True, mapper=info)
        for device in self.runtime.MapperRegister(request, wait_for_ready=True, timeout=60).deviceList:
            self.obey(device)

    def obey(self, device):
        """Does what is desired, and reports what is."""
        key = (device.namespace, device.name)
        with self.lock:
            brightness = self.lamps.get(key, 0)
            for prop in device.spec.properties:
                if prop.name == "dimmer" and prop.desired.value:
                    brightness = int(prop.desired.value)
            self.lamps[key] = brightness
        self.report(key, {"dimmer": brightness})

    def report(self, key, values):
        namespace, name = key
        twins = [dmi.Twin(propertyName=p, reported=dmi.TwinProperty(value=str(v))) for p, v in values.items()]
        self.runtime.ReportDeviceStatus(
            dmi.ReportDeviceStatusRequest(
                deviceName=name, deviceNamespace=namespace, reportedDevice=dmi.DeviceStatus(twins=twins)
            ),
            timeout=10,
        )

    def tick(self, hours):
        """A moment has passed for every lamp. Everything is reported again: a report may have been lost with the runtime."""
        with self.lock:
            lamps = dict(self.lamps)
        for key, brightness in lamps.items():
            try:
                self.report(key, {"dimmer": brightness, "hours": hours})
            except grpc.RpcError as error:  # The runtime restarts, or the lamp has just been removed.
                print(f"not reported: {error.code()}", file=sys.stderr)

    # The calls. Raising is an error to the runtime, which tries again.

    def RegisterDevice(self, request, context):
        threading.Thread(target=self.obey, args=(request.device,)).start()
        return dmi.Empty()

    def UpdateDevice(self, request, context):
        threading.Thread(target=self.obey, args=(request.device,)).start()
        return dmi.Empty()

    def RemoveDevice(self, request, context):
        with self.lock:
            self.lamps.pop((request.deviceNamespace, request.deviceName), None)
        return dmi.Empty()

    def CreateDeviceModel(self, request, context):
        return dmi.Empty()

    def UpdateDeviceModel(self, request, context):
        return dmi.Empty()

    def RemoveDeviceModel(self, request, context):
        return dmi.Empty()


def main():
    runtime, socket = sys.argv[1:3]
    lamps = Lamps(runtime)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    rpc.add_DeviceMapperServiceServicer_to_server(lamps, server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    lamps.register(socket)
    print("registered", flush=True)
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    hours = 0
    while not end.wait(0.5):
        hours += 1
        lamps.tick(hours)
    server.stop(1)


if __name__ == "__main__":
    main()
