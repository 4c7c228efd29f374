"""The memory manager: notes that outlive the process that wrote them, found again by words and by meaning."""
