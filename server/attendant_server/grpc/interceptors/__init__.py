"""What happens around every call, one concern in each module."""
