"""Calls drivers, and turns what breaks the contract into an error that names the driver.

Design: docs/design/contract.md.
"""
