"""Start, pages, clicks and a training open no connection to other machines.

The server runs as a user's does, without the variables of a CI, by which packages keep quiet. A proxy that the
environment names writes down who is called through it. Where the system allows a network of one's own, this happens in
one that leads nowhere, and every call and every question for a name is written down too.
"""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.geometry.volume import load_volume
from lib.server.launch import ROOT
from lib.server.process.offline import NO_TELEMETRY, stay_offline
from tests.server.process.test_launch import Launched, launched

STUDY = "study_00"
SHORT = {"iterations": 1, "roi_size": "16x16x16"}
LOOPBACK_UP = "ip link set lo up"
EVERY_ADDRESS = "ip route add local 0.0.0.0/0 dev lo"
IPV4, TCP, UDP, DNS, SYN, SYN_ACK = 0x0800, 6, 17, 53, 0x02, 0x12
PAGES = ("/", "/docs", "/redoc", "/openapi.json", "/ohif/", "/info/", "/report")
OWN_NETWORK = ("unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)))
FOREIGN = re.compile(r"""(?:src|href|action)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)|@import|url\(\s*["']?https?:""", re.I)


def network_is_possible() -> bool:
    try:
        return subprocess.run([*OWN_NETWORK, *LOOPBACK_UP.split()], check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return the record of a day of use, see `main`."""
    own = list(OWN_NETWORK) if network_is_possible() else []
    folder = tmp_path_factory.mktemp("day")
    words = [*own, sys.executable, "-m", "tests.server.process.test_leaves_nothing", str(folder), str(bool(own))]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_everything_was_done(seen: dict) -> None:
    assert (seen["click"], seen["training"]) == (200, "DONE")
    assert seen["pages"]["/info/"]["status"] == 200


def test_no_connection_through_a_proxy(seen: dict) -> None:
    assert seen["proxy"] == []


def test_no_direct_connection(seen: dict) -> None:
    if seen["packets"] is None:
        pytest.skip("needs unshare --net and ip (iproute2), and the right to use them")
    assert seen["probe"], "the recorder did not see a call that was made to try it"
    assert seen["packets"] == []


def test_mlflow_leaves_no_id_of_the_installation(seen: dict) -> None:
    assert [path for path in seen["home"] if "telemetry" in path] == []


def test_pages_fetch_nothing_from_elsewhere(seen: dict) -> None:
    """What a page names of other hosts, its policy must keep the browser from fetching."""
    for path, page in seen["pages"].items():
        policy = page["policy"]
        closed = bool(policy) and "http" not in policy and "*" not in policy
        assert closed or not FOREIGN.search(page["text"]), path


@pytest.mark.parametrize("known", [{}, {"no_proxy": "intranet"}, {"NO_PROXY": "a, b"}, {"no_proxy": "*"}])
@pytest.mark.parametrize("address", ["http://localhost:8042/", "http://127.0.0.1:8000/", "https://[::1]/"])
def test_this_machine_is_never_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, str], address: str
) -> None:
    for name in ("no_proxy", "NO_PROXY", *NO_TELEMETRY):
        monkeypatch.setenv(name, known.get(name, ""))
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    stay_offline()
    assert requests.utils.get_environ_proxies(address) == {}
    for host in "".join(known.values()).replace(" ", "").split(","):
        assert host in os.environ["no_proxy"].split(",") and host in os.environ["NO_PROXY"].split(",") or host == ""


def test_variables_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    stay_offline()
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["DO_NOT_TRACK"]) == ("false", "true")


class ProxyRecorder(socketserver.ThreadingTCPServer):
    """Proxy that records and refuses all requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Ask)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Ask(socketserver.StreamRequestHandler):
    server: ProxyRecorder

    def handle(self) -> None:
        if line := self.rfile.readline().decode(errors="replace").strip():
            self.server.asked.append(line)
        self.wfile.write(b"HTTP/1.1 502 no\r\nContent-Length: 0\r\n\r\n")


class PacketRecorder:
    """Recorder of all connections to addresses other than 127.x.x.x, which it makes local."""

    def __init__(self) -> None:
        for command in (LOOPBACK_UP, EVERY_ADDRESS):
            subprocess.run(command.split(), check=True)
        self.packets: list[str] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            packet = self._socket.recv(65535)
            start, protocol, target = (packet[0] & 15) * 4, packet[9], socket.inet_ntoa(packet[16:20])
            port = int.from_bytes(packet[start + 2 : start + 4], "big")
            begins = protocol == UDP or (protocol == TCP and packet[start + 13] & SYN_ACK == SYN)
            if begins and (port == DNS or not target.startswith("127.")):
                self.packets.append(f"{target}:{port} {_words(packet[start + 8 :])}")


def _words(content: bytes) -> str:
    return b".".join(re.findall(rb"[\w-]{2,}", content)).decode()


def main(folder: Path, own_network: bool) -> None:
    """Start a server, open the pages, click, train, and print the record as JSON."""
    packets = PacketRecorder() if own_network else None
    probe = packets is not None and _is_seen(packets)
    proxy = ProxyRecorder()
    home = folder / "home"
    home.mkdir()
    write_demo_studies(folder / "studies", folder / "truth", 2)
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    environment = {name: address for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy")}
    conf = {"model_dir": str(folder / "model")}
    with launched(
        folder / "studies", folder / "log", environment={**environment, "HOME": str(home)}, conf=conf
    ) as server:
        pages = {path: _page(server, path) for path in PAGES}
        click = _click(server, load_volume(folder / "truth" / f"{STUDY}.nii.gz").array > 0)
        training = _train(server)
        time.sleep(3)
    written = [str(path.relative_to(home)) for path in home.rglob("*")]
    seen = {"pages": pages, "click": click, "training": training, "proxy": proxy.asked, "home": written}
    print(json.dumps({**seen, "probe": probe, "packets": packets.packets if packets else None}))


def _is_seen(recorder: PacketRecorder) -> bool:
    with socket.socket() as caller:
        caller.setblocking(False)
        caller.connect_ex(("203.0.113.9", 443))
        time.sleep(0.5)
    found = any(packet.startswith("203.0.113.9:443") for packet in recorder.packets)
    recorder.packets.clear()
    return found


def _page(server: Launched, path: str) -> dict:
    answer = server.ask("GET", path)
    is_page = answer.headers.get("Content-Type", "").startswith("text/html")
    policy = answer.headers.get("Content-Security-Policy", "")
    return {"status": answer.status_code, "text": answer.text if is_page else "", "policy": policy}


def _click(server: Launched, mask: np.ndarray) -> int:
    params = json.dumps({"lesion": simulated_extreme_points(mask).tolist()})
    query = {"image": STUDY, "output": "image"}
    return server.ask("POST", "/infer/extreme_points", params=query, data={"params": params}).status_code


def _train(server: Launched) -> str:
    server.ask("POST", "/train/inextremis", json=SHORT).raise_for_status()
    while True:
        status = server.ask("GET", "/train/").json()["status"]
        if status not in ("SUBMITTED", "RUNNING"):
            return status
        time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "True")
