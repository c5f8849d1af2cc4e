"""scripts/demo.sh --dicom: an archive with the demo studies, the address of OHIF, and nothing left after Ctrl-C."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.installed import need_orthanc

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path):
    need_orthanc()
    command = [sys.executable, "-m", "scripts.demo", "--dicom", "--quick", "--out", str(tmp_path / "demo")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.kill()


def test_ohif_address_is_printed_and_all_servers_end_with_ctrl_c(demo):
    said = []
    for line in demo.stdout:
        said.append(line)
        if "Ctrl-C" in line:
            break
    text = "".join(said)
    (study,) = re.findall(r"http://\S+/ohif/monai-label\?StudyInstanceUIDs=\S+", text)
    (archive,) = re.findall(r"Orthanc: (http://\S+)", text)
    server = study.split("/ohif/")[0]
    assert requests.get(study, timeout=30).ok
    (image,) = re.findall(rf"{server}/annotate#(\S+)", text)
    assert requests.get(f"{server}/studies/{image}", timeout=60).json()["id"] == image
    assert requests.get(f"{server}/datastore/", timeout=30).json()["total"] == 8
    series = requests.get(f"{server}/proxy/dicom/qido/series", timeout=30).json()
    for tag in ("0008103E", "00100010"):  # the description of a series, the name of a patient: viewers show one of them
        assert len({str(of[tag]["Value"]) for of in series}) == 8

    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 0
    for address in (server, archive):
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=5)
