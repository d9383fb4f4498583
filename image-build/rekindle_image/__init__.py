"""The builder of the recovery medium: Debian, our code and a boot menu, made into one hybrid ISO."""
