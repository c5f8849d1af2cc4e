"""Names the packages of the wheel: the folders of the checkout, and the annotation page, below `inextremis`."""

from __future__ import annotations

import os
import subprocess

from setuptools import find_namespace_packages, setup

FOLDERS = ["lib", "lib.*", "scripts", "apps.inextremis", "web.dist"]

if __name__ == "__main__":
    # pip hides its own modules from a build by this variable, and the page may need them.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(["scripts/build_page.sh"], env=variables, check=True)
    setup(
        packages=[f"inextremis.{folder}" for folder in find_namespace_packages(include=FOLDERS)],
        package_dir={"inextremis": "."},
        package_data={"inextremis.web.dist": ["*"], "": ["*.html", "*.js", "*.npz"]},
    )
