# Made from inference.proto by packaging/protos.py, do not edit.
"""Messages of the Open Inference Protocol v2 over gRPC, in a pool of their own."""

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTOR = DescriptorPool().AddSerializedFile(
    b'\n\x0finference.proto\x12\tinference"\x13\n\x11ServerLiveRequest"(\n\x12ServerLiveR'
    b'esponse\x12\x12\n\x04live\x18\x01 \x01(\x08R\x04live"\x14\n\x12ServerReadyRequest"+\n\x13ServerReady'
    b'Response\x12\x14\n\x05ready\x18\x01 \x01(\x08R\x05ready"\x17\n\x15ServerMetadataRequest"f\n\x16Serve'
    b'rMetadataResponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12'
    b'\x1e\n\nextensions\x18\x03 \x03(\tR\nextensions"A\n\x11ModelReadyRequest\x12\x12\n\x04name\x18\x01 \x01'
    b'(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"*\n\x12ModelReadyResponse\x12\x14\n\x05read'
    b'y\x18\x01 \x01(\x08R\x05ready"D\n\x14ModelMetadataRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07ve'
    b'rsion\x18\x02 \x01(\tR\x07version"\xcf\x02\n\x15ModelMetadataResponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04na'
    b'me\x12\x1a\n\x08versions\x18\x02 \x03(\tR\x08versions\x12\x1a\n\x08platform\x18\x03 \x01(\tR\x08platform\x12G\n\x06in'
    b'puts\x18\x04 \x03(\x0b2/.inference.ModelMetadataResponse.TensorMetadataR\x06inp'
    b'uts\x12I\n\x07outputs\x18\x05 \x03(\x0b2/.inference.ModelMetadataResponse.TensorMet'
    b'adataR\x07outputs\x1aV\n\x0eTensorMetadata\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype'
    b'\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape"\xd7\x01\n\x0eInferParameter\x12\x1f\n\nboo'
    b'l_param\x18\x01 \x01(\x08H\x00R\tboolParam\x12!\n\x0bint64_param\x18\x02 \x01(\x03H\x00R\nint64Param\x12#\n'
    b'\x0cstring_param\x18\x03 \x01(\tH\x00R\x0bstringParam\x12#\n\x0cdouble_param\x18\x04 \x01(\x01H\x00R\x0bdoub'
    b'leParam\x12#\n\x0cuint64_param\x18\x05 \x01(\x04H\x00R\x0buint64ParamB\x12\n\x10parameter_choice'
    b'"\xc3\x02\n\x13InferTensorContents\x12#\n\rbool_contents\x18\x01 \x03(\x08R\x0cboolContents\x12!\n'
    b'\x0cint_contents\x18\x02 \x03(\x05R\x0bintContents\x12%\n\x0eint64_contents\x18\x03 \x03(\x03R\rint64C'
    b"ontents\x12#\n\ruint_contents\x18\x04 \x03(\rR\x0cuintContents\x12'\n\x0fuint64_contents\x18"
    b'\x05 \x03(\x04R\x0euint64Contents\x12#\n\rfp32_contents\x18\x06 \x03(\x02R\x0cfp32Contents\x12#\n\rfp'
    b'64_contents\x18\x07 \x03(\x01R\x0cfp64Contents\x12%\n\x0ebytes_contents\x18\x08 \x03(\x0cR\rbytesCo'
    b'ntents"\x9d\x08\n\x11ModelInferRequest\x12\x1d\n\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rm'
    b'odel_version\x18\x02 \x01(\tR\x0cmodelVersion\x12\x0e\n\x02id\x18\x03 \x01(\tR\x02id\x12L\n\nparameters\x18\x04'
    b' \x03(\x0b2,.inference.ModelInferRequest.ParametersEntryR\nparameters\x12E'
    b'\n\x06inputs\x18\x05 \x03(\x0b2-.inference.ModelInferRequest.InferInputTensorR\x06i'
    b'nputs\x12Q\n\x07outputs\x18\x06 \x03(\x0b27.inference.ModelInferRequest.InferReques'
    b'tedOutputTensorR\x07outputs\x12,\n\x12raw_input_contents\x18\x07 \x03(\x0cR\x10rawInputCo'
    b'ntents\x1a\xcd\x02\n\x10InferInputTensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01('
    b'\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12]\n\nparameters\x18\x04 \x03(\x0b2=.inferenc'
    b'e.ModelInferRequest.InferInputTensor.ParametersEntryR\nparameters'
    b'\x12:\n\x08contents\x18\x05 \x01(\x0b2\x1e.inference.InferTensorContentsR\x08contents\x1aX\n\x0f'
    b'ParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.Inf'
    b'erParameterR\x05value:\x028\x01\x1a\xf3\x01\n\x1aInferRequestedOutputTensor\x12\x12\n\x04name\x18\x01 '
    b'\x01(\tR\x04name\x12g\n\nparameters\x18\x02 \x03(\x0b2G.inference.ModelInferRequest.Infe'
    b'rRequestedOutputTensor.ParametersEntryR\nparameters\x1aX\n\x0fParameters'
    b'Entry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParamete'
    b'rR\x05value:\x028\x01\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b'
    b'2\x19.inference.InferParameterR\x05value:\x028\x01"\xe7\x03\n\x12ModelInferResponse\x12\x1d\n'
    b'\nmodel_name\x18\x01 \x01(\tR\tmodelName\x12#\n\rmodel_version\x18\x02 \x01(\tR\x0cmodelVersio'
    b'n\x12\x0e\n\x02id\x18\x03 \x01(\tR\x02id\x12M\n\nparameters\x18\x04 \x03(\x0b2-.inference.ModelInferResp'
    b'onse.ParametersEntryR\nparameters\x12I\n\x07outputs\x18\x05 \x03(\x0b2/.inference.Mo'
    b'delInferResponse.InferOutputTensorR\x07outputs\x12.\n\x13raw_output_conten'
    b'ts\x18\x06 \x03(\x0cR\x11rawOutputContents\x1aY\n\x11InferOutputTensor\x12\x12\n\x04name\x18\x01 \x01(\tR\x04'
    b'name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08datatype\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x1aX\n\x0fParame'
    b'tersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferPara'
    b'meterR\x05value:\x028\x01"\x85\x01\n\x18ModelStreamInferResponse\x12#\n\rerror_message\x18\x01'
    b' \x01(\tR\x0cerrorMessage\x12D\n\x0einfer_response\x18\x02 \x01(\x0b2\x1d.inference.ModelInfe'
    b'rResponseR\rinferResponse"B\n\x12ModelConfigRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04na'
    b'me\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"E\n\x13ModelConfigResponse\x12.\n\x06config\x18\x01 '
    b'\x01(\x0b2\x16.inference.ModelConfigR\x06config"\x92\x01\n\x12ModelVersionPolicy\x12>\n\x06la'
    b'test\x18\x01 \x01(\x0b2$.inference.ModelVersionPolicy.LatestH\x00R\x06latest\x1a+\n\x06La'
    b'test\x12!\n\x0cnum_versions\x18\x01 \x01(\rR\x0bnumVersionsB\x0f\n\rpolicy_choice"\xa9\x02\n\nMod'
    b'elInput\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x120\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataT'
    b'ypeR\x08dataType\x124\n\x06format\x18\x03 \x01(\x0e2\x1c.inference.ModelInput.FormatR\x06for'
    b'mat\x12\x12\n\x04dims\x18\x04 \x03(\x03R\x04dims\x12&\n\x0fis_shape_tensor\x18\x06 \x01(\x08R\risShapeTensor\x12'
    b',\n\x12allow_ragged_batch\x18\x07 \x01(\x08R\x10allowRaggedBatch\x12\x1a\n\x08optional\x18\x08 \x01(\x08R'
    b'\x08optional"\x19\n\x06Format\x12\x0f\n\x0bFORMAT_NONE\x10\x00"\xb6\x01\n\x0bModelOutput\x12\x12\n\x04name\x18\x01 \x01'
    b'(\tR\x04name\x120\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataTypeR\x08dataType\x12\x12\n\x04di'
    b'ms\x18\x03 \x03(\x03R\x04dims\x12%\n\x0elabel_filename\x18\x04 \x01(\tR\rlabelFilename\x12&\n\x0fis_shap'
    b'e_tensor\x18\x06 \x01(\x08R\risShapeTensor"\x0c\n\nBatchInput"\r\n\x0bBatchOutput"\xe7\x01\n\x12M'
    b'odelInstanceGroup\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x14\n\x05count\x18\x02 \x01(\x05R\x05count\x12\x12\n\x04g'
    b'pus\x18\x03 \x03(\x05R\x04gpus\x126\n\x04kind\x18\x04 \x01(\x0e2".inference.ModelInstanceGroup.Kin'
    b'dR\x04kind\x12\x18\n\x07passive\x18\x07 \x01(\x08R\x07passive"A\n\x04Kind\x12\r\n\tKIND_AUTO\x10\x00\x12\x0c\n\x08KIND'
    b'_GPU\x10\x01\x12\x0c\n\x08KIND_CPU\x10\x02\x12\x0e\n\nKIND_MODEL\x10\x03"\x89\x01\n\x14ModelDynamicBatching\x120\n'
    b'\x14preferred_batch_size\x18\x01 \x03(\x05R\x12preferredBatchSize\x12?\n\x1cmax_queue_del'
    b'ay_microseconds\x18\x02 \x01(\x04R\x19maxQueueDelayMicroseconds"3\n\x0eModelParamet'
    b'er\x12!\n\x0cstring_value\x18\x01 \x01(\tR\x0bstringValue"\r\n\x0bModelWarmup"6\n\x16ModelTra'
    b'nsactionPolicy\x12\x1c\n\tdecoupled\x18\x01 \x01(\x08R\tdecoupled"\xc6\x07\n\x0bModelConfig\x12\x12\n\x04'
    b'name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08platform\x18\x02 \x01(\tR\x08platform\x12D\n\x0eversion_policy\x18\x03'
    b' \x01(\x0b2\x1d.inference.ModelVersionPolicyR\rversionPolicy\x12$\n\x0emax_batch_'
    b'size\x18\x04 \x01(\x05R\x0cmaxBatchSize\x12+\n\x05input\x18\x05 \x03(\x0b2\x15.inference.ModelInputR\x05'
    b'input\x12.\n\x06output\x18\x06 \x03(\x0b2\x16.inference.ModelOutputR\x06output\x12D\n\x0einstanc'
    b'e_group\x18\x07 \x03(\x0b2\x1d.inference.ModelInstanceGroupR\rinstanceGroup\x124\n\x16d'
    b'efault_model_filename\x18\x08 \x01(\tR\x14defaultModelFilename\x12L\n\x10dynamic_bat'
    b'ching\x18\x0b \x01(\x0b2\x1f.inference.ModelDynamicBatchingH\x00R\x0fdynamicBatching\x12'
    b'F\n\nparameters\x18\x0e \x03(\x0b2&.inference.ModelConfig.ParametersEntryR\npar'
    b'ameters\x129\n\x0cmodel_warmup\x18\x10 \x03(\x0b2\x16.inference.ModelWarmupR\x0bmodelWarm'
    b'up\x12\x18\n\x07backend\x18\x11 \x01(\tR\x07backend\x12[\n\x18model_transaction_policy\x18\x13 \x01(\x0b2!'
    b'.inference.ModelTransactionPolicyR\x16modelTransactionPolicy\x126\n\x0bbat'
    b'ch_input\x18\x14 \x03(\x0b2\x15.inference.BatchInputR\nbatchInput\x129\n\x0cbatch_outpu'
    b't\x18\x15 \x03(\x0b2\x16.inference.BatchOutputR\x0bbatchOutput\x12\x18\n\x07runtime\x18\x19 \x01(\tR\x07r'
    b'untime\x1aX\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12/\n\x05value\x18\x02 \x01(\x0b2\x19.inf'
    b'erence.ModelParameterR\x05value:\x028\x01B\x13\n\x11scheduling_choice"F\n\x16ModelSt'
    b'atisticsRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version"V\n'
    b'\x17ModelStatisticsResponse\x12;\n\x0bmodel_stats\x18\x01 \x03(\x0b2\x1a.inference.ModelS'
    b'tatisticsR\nmodelStats"9\n\x11StatisticDuration\x12\x14\n\x05count\x18\x01 \x01(\x04R\x05count'
    b'\x12\x0e\n\x02ns\x18\x02 \x01(\x04R\x02ns"\xf2\x03\n\x0fInferStatistics\x126\n\x07success\x18\x01 \x01(\x0b2\x1c.inferenc'
    b'e.StatisticDurationR\x07success\x120\n\x04fail\x18\x02 \x01(\x0b2\x1c.inference.Statistic'
    b'DurationR\x04fail\x122\n\x05queue\x18\x03 \x01(\x0b2\x1c.inference.StatisticDurationR\x05que'
    b'ue\x12A\n\rcompute_input\x18\x04 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccompute'
    b'Input\x12A\n\rcompute_infer\x18\x05 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccomp'
    b'uteInfer\x12C\n\x0ecompute_output\x18\x06 \x01(\x0b2\x1c.inference.StatisticDurationR\r'
    b'computeOutput\x129\n\tcache_hit\x18\x07 \x01(\x0b2\x1c.inference.StatisticDurationR\x08'
    b'cacheHit\x12;\n\ncache_miss\x18\x08 \x01(\x0b2\x1c.inference.StatisticDurationR\tcach'
    b'eMiss"\x80\x02\n\x14InferBatchStatistics\x12\x1d\n\nbatch_size\x18\x01 \x01(\x04R\tbatchSize\x12A\n'
    b'\rcompute_input\x18\x02 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccomputeInput'
    b'\x12A\n\rcompute_infer\x18\x03 \x01(\x0b2\x1c.inference.StatisticDurationR\x0ccomputeIn'
    b'fer\x12C\n\x0ecompute_output\x18\x04 \x01(\x0b2\x1c.inference.StatisticDurationR\rcompu'
    b'teOutput"\r\n\x0bMemoryUsage"\x19\n\x17InferResponseStatistics"\xb6\x04\n\x0fModelStat'
    b'istics\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12%\n\x0elast_inf'
    b"erence\x18\x03 \x01(\x04R\rlastInference\x12'\n\x0finference_count\x18\x04 \x01(\x04R\x0einferenceC"
    b"ount\x12'\n\x0fexecution_count\x18\x05 \x01(\x04R\x0eexecutionCount\x12C\n\x0finference_stats"
    b'\x18\x06 \x01(\x0b2\x1a.inference.InferStatisticsR\x0einferenceStats\x12@\n\x0bbatch_stat'
    b's\x18\x07 \x03(\x0b2\x1f.inference.InferBatchStatisticsR\nbatchStats\x129\n\x0cmemory_u'
    b'sage\x18\x08 \x03(\x0b2\x16.inference.MemoryUsageR\x0bmemoryUsage\x12T\n\x0eresponse_stat'
    b's\x18\t \x03(\x0b2-.inference.ModelStatistics.ResponseStatsEntryR\rresponse'
    b'Stats\x1ad\n\x12ResponseStatsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x128\n\x05value\x18\x02 \x01(\x0b2".i'
    b'nference.InferResponseStatisticsR\x05value:\x028\x01"W\n\x16RepositoryIndexRe'
    b"quest\x12'\n\x0frepository_name\x18\x01 \x01(\tR\x0erepositoryName\x12\x14\n\x05ready\x18\x02 \x01(\x08R\x05r"
    b'eady"\xca\x01\n\x17RepositoryIndexResponse\x12E\n\x06models\x18\x01 \x03(\x0b2-.inference.Rep'
    b'ositoryIndexResponse.ModelIndexR\x06models\x1ah\n\nModelIndex\x12\x12\n\x04name\x18\x01 '
    b'\x01(\tR\x04name\x12\x18\n\x07version\x18\x02 \x01(\tR\x07version\x12\x14\n\x05state\x18\x03 \x01(\tR\x05state\x12\x16\n\x06rea'
    b'son\x18\x04 \x01(\tR\x06reason"\x1c\n\x1aRepositoryModelLoadRequest"\x1d\n\x1bRepositoryMod'
    b'elLoadResponse"\x1e\n\x1cRepositoryModelUnloadRequest"\x1f\n\x1dRepositoryMode'
    b'lUnloadResponse"5\n\x1fSystemSharedMemoryStatusRequest\x12\x12\n\x04name\x18\x01 \x01(\t'
    b'R\x04name"\xd7\x02\n SystemSharedMemoryStatusResponse\x12R\n\x07regions\x18\x01 \x03(\x0b28.i'
    b'nference.SystemSharedMemoryStatusResponse.RegionsEntryR\x07regions\x1a'
    b'i\n\x0cRegionStatus\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06offset\x18'
    b'\x03 \x01(\x04R\x06offset\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08byteSize\x1at\n\x0cRegionsEntry\x12\x10\n\x03ke'
    b'y\x18\x01 \x01(\tR\x03key\x12N\n\x05value\x18\x02 \x01(\x0b28.inference.SystemSharedMemoryStatus'
    b'Response.RegionStatusR\x05value:\x028\x01"~\n!SystemSharedMemoryRegisterRe'
    b'quest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06offset\x18\x03 \x01(\x04R\x06off'
    b'set\x12\x1b\n\tbyte_size\x18\x04 \x01(\x04R\x08byteSize"$\n"SystemSharedMemoryRegisterRe'
    b'sponse"9\n#SystemSharedMemoryUnregisterRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04nam'
    b'e"&\n$SystemSharedMemoryUnregisterResponse"3\n\x1dCudaSharedMemorySta'
    b'tusRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"\xf6\x01\n\x1eCudaSharedMemoryStatusRespons'
    b'e\x12P\n\x07regions\x18\x01 \x03(\x0b26.inference.CudaSharedMemoryStatusResponse.Re'
    b'gionsEntryR\x07regions\x1a\x0e\n\x0cRegionStatus\x1ar\n\x0cRegionsEntry\x12\x10\n\x03key\x18\x01 \x01(\t'
    b'R\x03key\x12L\n\x05value\x18\x02 \x01(\x0b26.inference.CudaSharedMemoryStatusResponse.'
    b'RegionStatusR\x05value:\x028\x01"!\n\x1fCudaSharedMemoryRegisterRequest""\n Cu'
    b'daSharedMemoryRegisterResponse"7\n!CudaSharedMemoryUnregisterRequ'
    b'est\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"$\n"CudaSharedMemoryUnregisterResponse"\x15\n'
    b'\x13TraceSettingRequest"\x16\n\x14TraceSettingResponse"\x14\n\x12LogSettingsReque'
    b'st"\x15\n\x13LogSettingsResponse*\xfa\x01\n\x08DataType\x12\x10\n\x0cTYPE_INVALID\x10\x00\x12\r\n\tTYPE'
    b'_BOOL\x10\x01\x12\x0e\n\nTYPE_UINT8\x10\x02\x12\x0f\n\x0bTYPE_UINT16\x10\x03\x12\x0f\n\x0bTYPE_UINT32\x10\x04\x12\x0f\n\x0bTYP'
    b'E_UINT64\x10\x05\x12\r\n\tTYPE_INT8\x10\x06\x12\x0e\n\nTYPE_INT16\x10\x07\x12\x0e\n\nTYPE_INT32\x10\x08\x12\x0e\n\nTYP'
    b'E_INT64\x10\t\x12\r\n\tTYPE_FP16\x10\n\x12\r\n\tTYPE_FP32\x10\x0b\x12\r\n\tTYPE_FP64\x10\x0c\x12\x0f\n\x0bTYPE_S'
    b'TRING\x10\r\x12\r\n\tTYPE_BF16\x10\x0e2\x8e\x0f\n\x14GRPCInferenceService\x12I\n\nServerLive\x12\x1c.'
    b'inference.ServerLiveRequest\x1a\x1d.inference.ServerLiveResponse\x12L\n\x0bSe'
    b'rverReady\x12\x1d.inference.ServerReadyRequest\x1a\x1e.inference.ServerReady'
    b'Response\x12U\n\x0eServerMetadata\x12 .inference.ServerMetadataRequest\x1a!.i'
    b'nference.ServerMetadataResponse\x12I\n\nModelReady\x12\x1c.inference.ModelR'
    b'eadyRequest\x1a\x1d.inference.ModelReadyResponse\x12R\n\rModelMetadata\x12\x1f.in'
    b'ference.ModelMetadataRequest\x1a .inference.ModelMetadataResponse\x12I'
    b'\n\nModelInfer\x12\x1c.inference.ModelInferRequest\x1a\x1d.inference.ModelInfe'
    b'rResponse\x12Y\n\x10ModelStreamInfer\x12\x1c.inference.ModelInferRequest\x1a#.in'
    b'ference.ModelStreamInferResponse(\x010\x01\x12L\n\x0bModelConfig\x12\x1d.inference.'
    b'ModelConfigRequest\x1a\x1e.inference.ModelConfigResponse\x12X\n\x0fModelStati'
    b'stics\x12!.inference.ModelStatisticsRequest\x1a".inference.ModelStatis'
    b'ticsResponse\x12X\n\x0fRepositoryIndex\x12!.inference.RepositoryIndexReque'
    b'st\x1a".inference.RepositoryIndexResponse\x12d\n\x13RepositoryModelLoad\x12%.'
    b'inference.RepositoryModelLoadRequest\x1a&.inference.RepositoryModel'
    b"LoadResponse\x12j\n\x15RepositoryModelUnload\x12'.inference.RepositoryMode"
    b'lUnloadRequest\x1a(.inference.RepositoryModelUnloadResponse\x12s\n\x18Syst'
    b'emSharedMemoryStatus\x12*.inference.SystemSharedMemoryStatusRequest'
    b'\x1a+.inference.SystemSharedMemoryStatusResponse\x12y\n\x1aSystemSharedMem'
    b'oryRegister\x12,.inference.SystemSharedMemoryRegisterRequest\x1a-.infe'
    b'rence.SystemSharedMemoryRegisterResponse\x12\x7f\n\x1cSystemSharedMemoryUn'
    b'register\x12..inference.SystemSharedMemoryUnregisterRequest\x1a/.infer'
    b'ence.SystemSharedMemoryUnregisterResponse\x12m\n\x16CudaSharedMemorySta'
    b'tus\x12(.inference.CudaSharedMemoryStatusRequest\x1a).inference.CudaSh'
    b'aredMemoryStatusResponse\x12s\n\x18CudaSharedMemoryRegister\x12*.inference'
    b'.CudaSharedMemoryRegisterRequest\x1a+.inference.CudaSharedMemoryReg'
    b'isterResponse\x12y\n\x1aCudaSharedMemoryUnregister\x12,.inference.CudaShar'
    b'edMemoryUnregisterRequest\x1a-.inference.CudaSharedMemoryUnregister'
    b'Response\x12O\n\x0cTraceSetting\x12\x1e.inference.TraceSettingRequest\x1a\x1f.infer'
    b'ence.TraceSettingResponse\x12L\n\x0bLogSettings\x12\x1d.inference.LogSettings'
    b'Request\x1a\x1e.inference.LogSettingsResponseb\x06proto3'
)

ServerLiveRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerLiveRequest"])
ServerLiveResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerLiveResponse"])
ServerReadyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerReadyRequest"])
ServerReadyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerReadyResponse"])
ServerMetadataRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerMetadataRequest"])
ServerMetadataResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerMetadataResponse"])
ModelReadyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelReadyRequest"])
ModelReadyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelReadyResponse"])
ModelMetadataRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelMetadataRequest"])
ModelMetadataResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelMetadataResponse"])
InferParameter = GetMessageClass(DESCRIPTOR.message_types_by_name["InferParameter"])
InferTensorContents = GetMessageClass(DESCRIPTOR.message_types_by_name["InferTensorContents"])
ModelInferRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInferRequest"])
ModelInferResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInferResponse"])
ModelStreamInferResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStreamInferResponse"])
ModelConfigRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelConfigRequest"])
ModelConfigResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelConfigResponse"])
ModelVersionPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelVersionPolicy"])
ModelInput = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInput"])
ModelOutput = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelOutput"])
BatchInput = GetMessageClass(DESCRIPTOR.message_types_by_name["BatchInput"])
BatchOutput = GetMessageClass(DESCRIPTOR.message_types_by_name["BatchOutput"])
ModelInstanceGroup = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInstanceGroup"])
ModelDynamicBatching = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelDynamicBatching"])
ModelParameter = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelParameter"])
ModelWarmup = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelWarmup"])
ModelTransactionPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelTransactionPolicy"])
ModelConfig = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelConfig"])
ModelStatisticsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStatisticsRequest"])
ModelStatisticsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStatisticsResponse"])
StatisticDuration = GetMessageClass(DESCRIPTOR.message_types_by_name["StatisticDuration"])
InferStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["InferStatistics"])
InferBatchStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["InferBatchStatistics"])
MemoryUsage = GetMessageClass(DESCRIPTOR.message_types_by_name["MemoryUsage"])
InferResponseStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["InferResponseStatistics"])
ModelStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStatistics"])
RepositoryIndexRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryIndexRequest"])
RepositoryIndexResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryIndexResponse"])
RepositoryModelLoadRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelLoadRequest"])
RepositoryModelLoadResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelLoadResponse"])
RepositoryModelUnloadRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelUnloadRequest"])
RepositoryModelUnloadResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelUnloadResponse"])
SystemSharedMemoryStatusRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryStatusRequest"])
SystemSharedMemoryStatusResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryStatusResponse"])
SystemSharedMemoryRegisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryRegisterRequest"])
SystemSharedMemoryRegisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryRegisterResponse"])
SystemSharedMemoryUnregisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryUnregisterRequest"])
SystemSharedMemoryUnregisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryUnregisterResponse"])
CudaSharedMemoryStatusRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryStatusRequest"])
CudaSharedMemoryStatusResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryStatusResponse"])
CudaSharedMemoryRegisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryRegisterRequest"])
CudaSharedMemoryRegisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryRegisterResponse"])
CudaSharedMemoryUnregisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryUnregisterRequest"])
CudaSharedMemoryUnregisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryUnregisterResponse"])
TraceSettingRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["TraceSettingRequest"])
TraceSettingResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["TraceSettingResponse"])
LogSettingsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["LogSettingsRequest"])
LogSettingsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["LogSettingsResponse"])
