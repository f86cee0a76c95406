"""Arithmetic of a run before it is begun: bytes on each device, operations of a step. Nothing here is measured."""
