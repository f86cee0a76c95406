"""What a checkpoint is: its file or folder, how it is read, and whose run it belongs to."""
