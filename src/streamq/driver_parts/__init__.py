"""Parts that several drivers are made of; ``streamq.driver`` exports them.

Design: docs/design/contract.md.
"""
