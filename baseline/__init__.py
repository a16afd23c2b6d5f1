"""What candidates are judged against: the streaming engine, its kernels' targets and the golden record."""
