"""The drop folder and its reader."""
