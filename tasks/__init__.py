"""What is done: plain functions for data, models and releases. Imports neither Prefect nor `flows`."""
