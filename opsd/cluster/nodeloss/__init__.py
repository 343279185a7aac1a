"""Why does this pod hang in Terminating, and is it safe to do anything about it?"""
