"""`make bench`: what the project costs against what a user would script, on the same servers in the same run."""
