"""Volumes from files and DICOM series, and where their voxels lie."""
