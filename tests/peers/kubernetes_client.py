"""The official Kubernetes client for Python against the API on a Unix socket: python kubernetes_client.py SOCKET

It speaks TCP only, so a forwarder of a few lines joins the two. Every step asserts; the last line printed is "ok".
"""

import socket
import sys
import threading

from kubernetes import client, dynamic, watch
from kubernetes.client.exceptions import ApiException


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def forward(listener, path):
    while True:
        near, _ = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(path)
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def refused(code, call, *arguments):
    try:
        call(*arguments)
    except ApiException as error:
        assert error.status == code, error
        return
    raise AssertionError(f"not refused with {code}")


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=forward, args=(listener, sys.argv[1]), daemon=True).start()
configuration = client.Configuration()
configuration.host = "http://127.0.0.1:%d" % listener.getsockname()[1]
api = client.ApiClient(configuration)
v1 = client.CoreV1Api(api)

# Objects: create, conflict, read, patch, replace with optimistic concurrency, select.
body = {"metadata": {"name": "a", "labels": {"app": "x"}}, "data": {"k": "1"}}
made = v1.create_namespaced_config_map("default", body)
assert made.metadata.uid and made.metadata.creation_timestamp, made
refused(409, v1.create_namespaced_config_map, "default", body)
assert v1.patch_namespaced_config_map("a", "default", {"data": {"l": "2"}}).data == {"k": "1", "l": "2"}
current = v1.read_namespaced_config_map("a", "default")
current.data["k"] = "3"
assert v1.replace_namespaced_config_map("a", "default", current).data == {"k": "3", "l": "2"}
refused(409, v1.replace_namespaced_config_map, "a", "default", current)
refused(404, v1.read_namespaced_config_map, "nothing", "default")
assert [m.metadata.name for m in v1.list_config_map_for_all_namespaces(label_selector="app in (x,y)").items] == ["a"]

# Pods: containers are patched by name.
pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "b:1", "args": ["x"]}]}}
assert v1.create_namespaced_pod("default", pod).spec.containers[0].image == "b:1"
patch = {"spec": {"containers": [{"name": "c", "image": "b:2"}]}}
container = v1.patch_namespaced_pod("p", "default", patch).spec.containers[0]
assert (container.image, container.args) == ("b:2", ["x"]), container
refused(422, v1.create_namespaced_pod, "default", {"metadata": {"name": "q"}, "spec": {"containers": []}})
assert v1.delete_namespaced_pod("p", "default").metadata.name == "p"

# A watch from a list on, while another thread writes.
listed = v1.list_namespaced_config_map("default")
writer = threading.Thread(
    target=lambda: [
        v1.patch_namespaced_config_map("a", "default", {"data": {"n": str(n)}}) for n in range(20)
    ]
)
writer.start()
seen = []
stream = watch.Watch()
version = listed.metadata.resource_version
for event in stream.stream(v1.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=60):
    assert event["type"] == "MODIFIED", event
    seen.append(event["object"].data["n"])
    if len(seen) == 20:
        break
assert seen == [str(n) for n in range(20)], seen
writer.join()

# Kinds the client has never heard of: discovery, custom objects, server-side apply.
model = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "m", "namespace": "default"},
    "spec": {"protocol": "modbus", "properties": [{"name": "t", "type": "INT", "accessMode": "ReadOnly"}]},
}
custom = client.CustomObjectsApi(api)
custom.create_namespaced_custom_object("devices.kubeedge.io", "v1beta1", "default", "devicemodels", model)
resource = dynamic.DynamicClient(api).resources.get(api_version=model["apiVersion"], kind="DeviceModel")
assert [m.metadata.name for m in resource.get(namespace="default").items] == ["m"]
model["spec"]["properties"][0]["type"] = "FLOAT"
applied = resource.server_side_apply(body=model, name="m", namespace="default", field_manager="test")
assert applied.spec.properties[0].type == "FLOAT", applied

# The node, events, the version.
assert [n.status.node_info.operating_system for n in v1.list_node().items] == ["linux"]
v1.list_event_for_all_namespaces(field_selector="involvedObject.kind=Pod")
assert client.VersionApi(api).get_code().major == "1"
v1.delete_namespaced_config_map("a", "default")
print("ok")
