"""What arrives at a facility and what becomes of it: watched, told and worked off day and night."""
