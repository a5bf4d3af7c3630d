from anyrec.cli.app import train_main

train_main()
