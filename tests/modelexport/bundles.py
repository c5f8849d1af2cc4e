"""MONAI bundles, run as a user does who has MONAI and not this repository."""

import os
import subprocess
import sys


def run_bundle(bundle, scans, masks, *options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-m", "monai.bundle", "run", "--bundle_root", str(bundle)]
    command += ["--config_file", str(bundle / "configs" / "inference.json")]
    command += ["--dataset_dir", str(scans), "--output_dir", str(masks), *options]
    answer = subprocess.run(command, cwd=bundle.parent, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer
