"""Interceptors around every call, one concern per module."""
