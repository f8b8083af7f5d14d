# What compares times, and makes the load itself: two at once on two cores would measure each other.
foreach(driver IN ITEMS uring threads)
  set_tests_properties(
    "examples.${driver}.a healthy client is served beside one that never tires of nonsense"
    "examples.${driver}.a healthy client is served beside 2,000 others that hang"
    PROPERTIES RUN_SERIAL TRUE)
endforeach()
