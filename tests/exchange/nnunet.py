"""The rules of nnU-Net v2 for a dataset, checked on its files.

They are those of its documentation (dataset format, ignore label) and of its own check before planning:

1. The folder is named DatasetXXX_Name, with three digits.
2. `dataset.json` has `channel_names`, `labels`, `numTraining` and `file_ending`.
3. `imagesTr` holds `CASE_XXXX` + file ending, one file for each channel, and `labelsTr` `CASE` + file ending for each
   case; there are `numTraining` cases, and no other files.
4. `labels` are name to integer, `background` is 0, and all are consecutive; `ignore` is the highest, if it is there.
5. A label map holds no other value than these.
6. No voxel of an image or a label map is NaN.
7. Image and label map of a case have the same shape, spacing, origin and direction, as SimpleITK reads them, which is
   what nnU-Net reads `.nii.gz` with.
"""

import json
import re

import numpy as np
import SimpleITK as sitk


def broken_rules(folder):
    """Return a sentence for each rule that a dataset breaks."""
    content = json.loads((folder / "dataset.json").read_text())
    return [*_broken_by_description(folder, content), *_broken_by_files(folder, content)]


def _broken_by_description(folder, content):
    if not re.fullmatch(r"Dataset\d{3}_.+", folder.name):
        yield f"1: the folder is named {folder.name}"
    missing = {"channel_names", "labels", "numTraining", "file_ending"} - content.keys()
    if missing:
        yield f"2: dataset.json lacks {missing}"
    values = list(content["labels"].values())
    if sorted(values) != list(range(len(values))) or content["labels"].get("background") != 0:
        yield f"4: the labels are {content['labels']}"
    if content["labels"].get("ignore", max(values)) != max(values):
        yield "4: ignore is not the highest"


def _broken_by_files(folder, content):
    ending, channels = content["file_ending"], len(content["channel_names"])
    images = sorted(path.name for path in (folder / "imagesTr").iterdir())
    cases = sorted({re.sub(r"_\d{4}$", "", name.removesuffix(ending)) for name in images})
    if images != sorted(f"{case}_{channel:04d}{ending}" for case in cases for channel in range(channels)):
        yield f"3: imagesTr holds {images}"
    if sorted(path.name for path in (folder / "labelsTr").iterdir()) != [f"{case}{ending}" for case in cases]:
        yield "3: labelsTr does not hold one label map for each case"
    if len(cases) != content["numTraining"]:
        yield f"3: numTraining is {content['numTraining']}, and there are {len(cases)} cases"
    for case in cases:
        label_map = sitk.ReadImage(str(folder / "labelsTr" / f"{case}{ending}"))
        image = sitk.ReadImage(str(folder / "imagesTr" / f"{case}_0000{ending}"))
        for name in ("Size", "Spacing", "Origin", "Direction"):
            if not np.allclose(*(getattr(one, f"Get{name}")() for one in (image, label_map))):
                yield f"7: {name} of {case} differs between image and label map"
        found = sitk.GetArrayFromImage(label_map)
        if not set(np.unique(found).tolist()) <= set(content["labels"].values()):
            yield f"5: {case} holds the values {np.unique(found)}"
        if np.isnan(found).any() or np.isnan(sitk.GetArrayFromImage(image)).any():
            yield f"6: {case} holds NaN"
