from anyrec.cli.app import inference_main

inference_main()
