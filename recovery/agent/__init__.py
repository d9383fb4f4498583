"""The continuous agent of a running host: a keyframe an hour, a journal point a minute, whatever happens."""
