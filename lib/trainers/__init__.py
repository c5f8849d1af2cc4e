"""Run trainings as a task of MONAI Label."""
