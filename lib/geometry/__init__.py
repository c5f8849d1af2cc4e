"""Read volumes from files and DICOM series, and locate their voxels in the patient."""
