"""The backend's name, for messages."""

BACKEND = "sqs"
