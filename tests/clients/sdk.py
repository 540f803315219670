"""Docker's SDK for Python against a socket: each part of the API, as programs use it."""

import io
import sys
import tarfile
import threading
import time

import docker

ECHO, TOOLBOX = sys.argv[1:3]
client = docker.from_env(timeout=60)
api = client.api


def until(what, condition, limit=60):
    """Waits for a condition; fails with its last answer."""
    end = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: {found!r}"
        time.sleep(0.05)


def refused(status, call, *arguments, **keywords):
    """The call fails with that status, and says why."""
    try:
        call(*arguments, **keywords)
    except docker.errors.APIError as error:
        assert error.response.status_code == status, (status, error)
        assert error.explanation, error
        return error.explanation
    raise AssertionError(f"{call} was not refused")


def system():
    assert client.ping()
    assert client.version()["Os"] == "linux"
    info = client.info()
    assert info["Swarm"]["LocalNodeState"] == "active", info["Swarm"]
    assert "Containers" in client.df()
    refused(501, client.images.build, fileobj=io.BytesIO(b"FROM scratch"))


def images():
    image = client.images.pull(ECHO)
    assert image.attrs["Architecture"] and image.history()
    assert image.tag("local/echo", "two")
    assert any("local/echo:two" in one.tags for one in client.images.list())
    image.reload()
    saved = b"".join(image.save(named="local/echo:two"))
    client.images.remove("local/echo:two")
    assert client.images.load(saved)[0].id == image.id
    client.images.remove("local/echo:two")
    assert client.images.get_registry_data(ECHO).id.startswith("sha256:")
    refused(404, client.images.get, "local/none")


def containers():
    client.images.pull(TOOLBOX)
    assert client.containers.run(TOOLBOX, ["echo", "said"], remove=True) == b"said\n"
    try:
        client.containers.run(TOOLBOX, ["sh", "-c", "echo why >&2; exit 3"])
        raise AssertionError("a status of 3 went unnoticed")
    except docker.errors.ContainerError as error:
        assert error.exit_status == 3 and b"why" in error.stderr, error
        error.container.remove()
    volume = client.volumes.create("data", labels={"a": "b"})
    one = client.containers.run(
        TOOLBOX,
        ["sh", "-c", "echo begun; trap 'exit 0' TERM; while :; do sleep 0.1; done"],
        name="one",
        detach=True,
        environment={"COLOUR": "red"},
        labels={"kind": "sdk"},
        volumes={"data": {"bind": "/data", "mode": "rw"}},
        mem_limit="64m",
        ports={"8080/tcp": None},
        init=True,
    )
    until("the log", lambda: one.logs() == b"begun\n")
    one.reload()
    assert one.status == "running" and one.ports["8080/tcp"], one.attrs["NetworkSettings"]
    assert [c.name for c in client.containers.list(filters={"label": "kind=sdk"})] == ["one"]
    status, said = one.exec_run(["sh", "-c", "echo $COLOUR; echo bad >&2; exit 7"], demux=True)
    assert (status, said) == (7, (b"red\n", b"bad\n")), (status, said)
    status, said = one.exec_run(["nothing-here"])
    assert status == 127 and b"executable file not found" in said, (status, said)
    socket = api.exec_start(api.exec_create(one.id, ["cat"], stdin=True)["Id"], socket=True)
    socket._sock.sendall(b"through\n")
    assert b"through" in socket.read(16)
    socket.close()
    assert any("sleep" in " ".join(row) or "sh" in " ".join(row) for row in one.top()["Processes"])
    assert one.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("note")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"kept"))
    assert one.put_archive("/data", packed.getvalue())
    bits, about = one.get_archive("/data/note")
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as archive:
        assert archive.extractfile("note").read() == b"kept" and about["size"] == 4
    assert {"Path": "/data", "Kind": 1} in one.diff() or one.diff() is not None
    one.pause()
    one.reload()
    assert one.status == "paused"
    one.unpause()
    one.rename("uno")
    one.update(mem_limit="96m", memswap_limit="96m")
    one.reload()
    assert one.name == "uno" and one.attrs["HostConfig"]["Memory"] == 96 << 20
    one.restart(timeout=1)
    refused(409, client.containers.create, TOOLBOX, name="uno")
    one.kill("TERM")
    assert one.wait()["StatusCode"] == 0
    refused(409, volume.remove)
    one.remove()
    volume.remove()
    client.containers.create(TOOLBOX, name="never")
    assert len(client.containers.prune()["ContainersDeleted"]) == 1
    refused(404, client.containers.get, "never")


def networks():
    network = client.networks.create("ch03", driver="overlay", attachable=True)
    other = client.networks.create("ch04", driver="overlay", attachable=True)
    web = client.containers.run(ECHO, name="web", network="ch03", detach=True)
    asker = client.containers.run(TOOLBOX, ["sleep", "1000"], name="asker", network="ch03", detach=True)
    fetch = ["wget", "-T", "5", "-qO-", "http://web:8080"]
    until("the other one answers", lambda: asker.exec_run(fetch)[1] == b"Hello Docker!!" or asker.exec_run(fetch)[1].startswith(b"Hello"))
    other.connect(asker, aliases=["also"])
    asker.reload()
    assert set(asker.attrs["NetworkSettings"]["Networks"]) == {"ch03", "ch04"}
    other.disconnect(asker)
    network.reload()
    assert {c.name for c in network.containers} == {"web", "asker"}
    refused(403, network.remove)
    for container in (web, asker):
        container.remove(force=True)
    for one in (network, other):
        one.remove()


def cluster():
    seen, ready, since = [], threading.Event(), time.time()

    def listen():
        for event in client.events(decode=True, since=since, filters={"type": ["service", "secret"]}):
            seen.append((event["Type"], event["Action"]))
            if ("secret", "remove") in seen:
                ready.set()
                return

    threading.Thread(target=listen, daemon=True).start()
    assert len(client.nodes.list()) == 2
    node = client.nodes.list(filters={"role": "worker"})[0]
    spec = node.attrs["Spec"]
    assert node.update({**spec, "Labels": {"rack": "a"}})
    assert "JoinTokens" in client.swarm.attrs
    secret = client.secrets.create(name="key", data=b"hidden")
    config = client.configs.create(name="site", data=b"listen")
    network = client.networks.create("ch03", driver="overlay")
    service = client.services.create(
        ECHO,
        name="web",
        networks=["ch03"],
        mode=docker.types.ServiceMode("replicated", replicas=1),
        secrets=[docker.types.SecretReference(secret.id, "key")],
        configs=[docker.types.ConfigReference(config.id, "site")],
        endpoint_spec=docker.types.EndpointSpec(ports={8100: (8080, "tcp")}),
        labels={"tier": "front"},
    )
    running = lambda: [t for t in service.tasks(filters={"desired-state": "running"}) if t["Status"]["State"] == "running"]
    until("one task runs", lambda: len(running()) == 1)
    until("the service is scaled", lambda: done(service, service.scale, 3))
    until("three tasks run", lambda: len(running()) == 3)
    until("the service is updated", lambda: done(service, service.update, env=["COLOUR=green"]))
    service.reload()
    assert service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["COLOUR=green"]
    assert [s.name for s in client.services.list(filters={"label": "tier=front"})] == ["web"]
    list(service.logs(stdout=True))
    refused(400, secret.remove)
    service.remove()
    until("the network is free", lambda: gone(network))
    config.remove()
    secret.remove()
    assert ready.wait(10), seen
    assert ("service", "create") in seen and ("service", "remove") in seen, seen


def done(service, change, *arguments, **keywords):
    """As of what is there now: addresses that are given and updates that end change the object, too."""
    service.reload()
    try:
        return change(*arguments, **keywords)
    except docker.errors.APIError as error:
        assert "out of sequence" in error.explanation, error
        return False


def gone(network):
    try:
        network.remove()
        return True
    except docker.errors.APIError:
        return False


for part in (system, images, containers, networks, cluster):
    begun = time.monotonic()
    part()
    print(f"{part.__name__}: {time.monotonic() - begun:.1f} s", file=sys.stderr)
