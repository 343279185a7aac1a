"""From transitions to messages on a phone: policy, text, and delivery from the outbox."""
