"""Mail: letters from process to process, once each and in order."""
