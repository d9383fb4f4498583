# What the root shell of the medium says first.
if [ -t 1 ] && [ -z "$REKINDLE_GREETED" ]; then
    export REKINDLE_GREETED=1
    printf '\nRekindle recovery medium. This is a root shell; the console is on Alt+F1, or where you left it (exit).\n'
    printf '`rekindle --help` lists the commands, `journalctl -u rekindle-engine` shows the log of the engine.\n\n'
fi
