"""Send requests as viewers and scripts do; `server` is any object with a `url`."""

import json

import nibabel as nib
import requests


class Session(requests.Session):
    """Client that keeps cookies, as a browser does, and follows no redirects."""

    def __init__(self, url, token=None):
        super().__init__()
        self.url = url
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"

    def request(self, method, path, **options):
        url = path if path.startswith("http") else f"{self.url}{path}"
        return super().request(method, url, **{"timeout": 120, **options, "allow_redirects": False})

    def infer(self, image, params, model="extreme_points", **query):
        """Request a mask; `output` is `image` unless given."""
        params = (
            {"result_extension": ".nrrd", "result_dtype": "uint8", **params} if isinstance(params, dict) else params
        )
        data = {"params": params if isinstance(params, str) else json.dumps(params)}
        return self.post(f"/infer/{model}", params={"image": image, "output": "image", **query}, data=data)


def infer(server, image, params, model="extreme_points", **query):
    """Request a mask as `Session.infer`."""
    return Session(server.url).infer(image, params, model, **query)


def submit(server, image, mask, affine_ras, tag="final", **params):
    """Send a mask (X, Y, Z) of an image, as Slicer does."""
    return requests.put(
        f"{server.url}/datastore/label",
        params={"image": image, "tag": tag},
        data={"params": json.dumps(params)},
        files={"label": ("mask.nii", nib.Nifti1Image(mask, affine_ras).to_bytes())},
        timeout=60,
    )


def datastore(server, **query):
    """Return the statistics of the studies; with `output="all"` the list of images."""
    return requests.get(f"{server.url}/datastore/", params=query, timeout=60).json()
