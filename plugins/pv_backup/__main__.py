"""`python -m pv_backup`: look at the bucket and read artefacts, without Airflow and without the journal."""

import sys

from pv_backup.cli.main import main

sys.exit(main())
