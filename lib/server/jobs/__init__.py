"""Run trainings and pre-annotations in processes of their own."""
