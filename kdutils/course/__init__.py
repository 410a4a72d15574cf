"""What only this course needs: its data, networks, drawings and exercises. The library does without it."""
