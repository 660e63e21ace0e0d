"""Prefect flows over sessions; as little logic as possible."""
