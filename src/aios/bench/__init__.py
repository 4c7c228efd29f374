"""The benches: what AIOS costs, each figure beside a baseline that was measured in the same run."""
