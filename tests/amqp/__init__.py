"""The AMQP client and the in-memory broker."""
