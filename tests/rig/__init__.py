"""The real parts that the tests run against, started on demand and gone with the test process."""
