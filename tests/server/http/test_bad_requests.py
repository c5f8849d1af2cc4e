"""Send generated bad requests to a real server: each is answered, and none reaches files outside its folders.

`FUZZ_REQUESTS=2000 python -m pytest tests/server/http/test_bad_requests.py` sends more of them.
"""

import json
import os
import pickle

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.asking import Session
from tests.server.conftest import running_site

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "250"))
SECRET = "no patient of this server"
STUDY = "study_00"


class Trap:
    """Pickle that creates a file when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad requests")
    for name in ("secret.txt", "secret.nii.gz"):
        (root / name).write_text(SECRET)
    (root / "secret.json").write_text(json.dumps({"schema_version": SECRET}))
    with running_site(root, 2, iterations="1") as site:
        yield root, site.server


def outside(root):
    """Return all files outside the server's folders, with their contents."""
    own = (root / "studies", root / "model", root / "server.log")
    files = (path for path in root.rglob("*") if path.is_file() and not any(path.is_relative_to(o) for o in own))
    return {path: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def tricks(site):
    """Return names that lead out of a folder, or are not valid."""
    root, _ = site
    paths = ["../secret.txt", "..%2Fsecret.txt", "../../secret", str(root / "secret.txt"), str(root / "secret.nii.gz")]
    others = ["/etc/passwd", "..", ".", "", "a\0b", "x" * 5000, "../secret.nii.gz", "~/.ssh/id_rsa", "study_00/.."]
    return paths + others


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
POINTS = st.lists(st.lists(st.integers(-5, 200) | st.floats() | st.text(max_size=3), max_size=4), max_size=8)


def names(tricks):
    return st.sampled_from([STUDY, "study_01", *tricks]) | st.text(max_size=12)


def click_params(tricks):
    known = {
        "lesion": POINTS | JUNK,
        "background": POINTS | JUNK,
        "foreground": POINTS | JUNK,
        "label": names(tricks) | JUNK,
        "image": names(tricks),
        "model": names(tricks) | JUNK,
        "result_extension": names(tricks) | st.sampled_from([".nrrd", ".pkl", "/../x.nii.gz", ".exe"]) | JUNK,
        "result_dtype": st.sampled_from(["uint8", "object", "float16"]) | JUNK,
        "result_write_to_file": JUNK,
        "coordinates": st.sampled_from(["lps", "ras", "voxel", "mm"]) | JUNK,
        "client_id": names(tricks) | JUNK,
        "session": JUNK,
        "save_label": st.just(True),
        "label_tag": names(tricks),
        "use_stored_clicks": JUNK,
        "absent": st.lists(st.sampled_from(["lesion", "cyst", "absent", ""]), max_size=3) | JUNK,
    }
    return st.fixed_dictionaries({}, optional=known)


def train_params(tricks):
    known = ("iterations", "roi_size", "learning_rate", "network", "network_arguments", "device")
    folders = ("model_dir", "bundle_path", "train_ds", "val_ds", "tracking_uri", "name")
    optional = dict.fromkeys(known, JUNK) | dict.fromkeys(folders, names(tricks))
    return st.fixed_dictionaries({}, optional=optional)


def requests_of(tricks):
    """Return a strategy of requests: method, path, further arguments of `requests.request`."""
    name, text = names(tricks), st.text(max_size=30)
    quote = requests.utils.quote
    tag = st.sampled_from(["final", "original", "extreme_points"]) | name
    junk = JUNK.map(json.dumps) | text

    def fixed(value):
        return st.fixed_dictionaries(value) if isinstance(value, dict) else value

    def request(method, path, **parts):
        path = st.just(path) if isinstance(path, str) else path
        return st.tuples(
            st.just(method), path, st.fixed_dictionaries({key: fixed(part) for key, part in parts.items()})
        )

    def optional(**parts):
        return st.fixed_dictionaries({}, optional=parts)

    def body(content):
        # Not by `json=`, which refuses to send NaN.
        return {"data": content.map(json.dumps), "headers": st.just({"Content-Type": "application/json"})}

    def at(folder, what, end=""):
        return what.map(lambda value: folder + quote(value, safe="") + end)

    def file(field):
        return {field: st.tuples(name.filter(bool), st.binary(max_size=200))}

    models = st.sampled_from(["extreme_points", "extreme_points_annotation", "inextremis"]) | name
    outputs = st.sampled_from(["image", "json", "all", "x"])
    info = st.sampled_from(["/datastore/image/info", "/datastore/label/info"])
    of_image, of_label = {"image": name}, {"label": name, "tag": tag}
    deleted = {"id": name.filter(lambda value: value not in (STUDY, "study_01")), "tag": tag}
    accepted = optional(labels=JUNK, client_id=JUNK).map(json.dumps) | text
    return st.one_of(
        request(
            "POST",
            at("/infer/", models),
            params=optional(image=name, session_id=name, output=outputs),
            data=optional(params=click_params(tricks).map(json.dumps) | text),
        ),
        request("POST", at("/train/", st.just("inextremis") | name), **body(train_params(tricks) | JUNK)),
        request("POST", "/train/", **body(JUNK)),
        request("POST", at("/activelearning/", st.sampled_from(["random", "first"]) | name), **body(JUNK)),
        request(
            "PUT", "/datastore/label", params={"image": name, "tag": tag}, data={"params": junk}, files=file("label")
        ),
        request("PUT", "/datastore/image", params=of_image, files=file("file")),
        request("GET", "/datastore/image", params=of_image),
        request("GET", "/datastore/image/info", params=of_image),
        request("GET", "/datastore/label", params=of_label),
        request("GET", "/datastore/label/info", params=of_label),
        request("PUT", info, params={**of_image, **of_label}, data={"info": junk}),
        request("DELETE", "/datastore/label", params=deleted),
        request("POST", at("/annotations/", name, "/accept"), data=accepted),
        request("DELETE", at("/annotations/", name, "/accept"), params={"client_id": text}),
        request("GET", at("/session/", name)),
        request("DELETE", at("/session/", name)),
        request("GET", at("/model/", name)),
    )


def test_no_request_gets_a_server_error_or_reaches_beyond_the_folders(site, tricks):
    root, server = site
    before = outside(root)

    @settings(max_examples=REQUESTS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(requests_of(tricks))
    def send(request):
        method, path, parts = request
        try:
            answer = requests.request(method, server.url + path, timeout=60, **parts)
        except (ValueError, requests.exceptions.InvalidURL):
            return  # what cannot be put into a request never reaches the server
        assert answer.status_code < 500, (answer.status_code, answer.text[:500])
        assert SECRET.encode() not in answer.content

    send()
    assert outside(root) == before
    assert server.process.poll() is None
    assert requests.get(f"{server.url}/info/", timeout=30).ok


@pytest.mark.parametrize("name", ["trap.pt", "trap.pkl", "trap.npy", "trap.nii.gz", "trap.nrrd"])
def test_no_pickle_from_a_request_is_loaded(site, name):
    root, server = site
    mark = root / "studies" / "loaded"
    trap = pickle.dumps(Trap(str(mark)))

    session = Session(server.url)
    session.put("/datastore/label", params={"image": STUDY, "tag": "final"}, files={"label": (name, trap)})
    session.put("/datastore/image", params={"image": "trap"}, files={"file": (name, trap)})
    for model in ("extreme_points", "inextremis"):
        data = {"params": json.dumps({"lesion": np.eye(3, dtype=int).tolist() * 2})}
        for image in ("trap", STUDY):
            query = {"image": image}
            answer = session.post(f"/infer/{model}", params=query, data=data, files={"file": (name, trap)})
            assert answer.status_code < 500
    assert not mark.exists()
