"""What the sqlite driver is made of: schema, two threads, and wake-ups across processes."""
