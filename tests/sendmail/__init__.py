"""The same calls made to Postfix's sendmail and to ours: `python -m tests.sendmail`."""
